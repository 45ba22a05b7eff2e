// Elements, and what is said in them.
//
// Text goes in by textContent alone; the page's policy refuses HTML from a script.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child !== null).map((child) =>
    child instanceof Node ? child : document.createTextNode(String(child))));
  return made;
}

export const make = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);

export const draw = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

/** Set text, touching the document only where it differs. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function mark(element, name, value) {
  if (value === null || value === undefined || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) {
    element.setAttribute(name, String(value));
  }
}

/** A problem shown where it belongs; `actions` are [label, function] pairs. */
export function showProblem(box, title, hint = "", actions = []) {
  const parts = [make("strong", {}, title)];
  if (hint) parts.push(make("span", {}, " " + hint));
  if (actions.length) {
    const row = make("div", { class: "actions" });
    for (const [label, act] of actions) {
      const button = make("button", { type: "button", class: "quiet" }, label);
      button.addEventListener("click", act);
      row.append(button);
    }
    parts.push(row);
  }
  box.replaceChildren(...parts);
  box.hidden = false;
}

export function hideProblem(box) {
  box.hidden = true;
  box.replaceChildren();
}

const SAID_MS = 6000;
let saidTimer = 0;

/** A word on what was just done, for eyes and ears. */
export function announce(text) {
  const box = byId("said");
  box.textContent = text;
  box.dataset.shown = "";
  clearTimeout(saidTimer);
  saidTimer = setTimeout(() => delete box.dataset.shown, SAID_MS);
}
