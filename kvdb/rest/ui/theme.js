// Light, dark, or as the system has it.

import { announce, byId } from "./dom.js";

const NAME = "kvdb.theme"; // in localStorage
const ORDER = ["auto", "light", "dark"];
const WORDS = { auto: "Auto", light: "Light", dark: "Dark" };
const listeners = [];

/** Call `listener` when colours have changed. */
export const onTheme = (listener) => listeners.push(listener);

function remembered() {
  try {
    const name = localStorage.getItem(NAME);
    return ORDER.includes(name) ? name : "auto";
  } catch {
    return "auto"; // storage is switched off
  }
}

function show(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  byId("theme-text").textContent = WORDS[name];
  byId("theme").setAttribute("aria-label", `Colours: ${WORDS[name]}`);
  byId("theme").title = `Colours: ${WORDS[name]}. Click for the next.`;
  for (const listener of listeners) listener();
}

export function prepareTheme() {
  let name = remembered();
  show(name);
  byId("theme").addEventListener("click", () => {
    name = ORDER[(ORDER.indexOf(name) + 1) % ORDER.length];
    try {
      localStorage.setItem(NAME, name);
    } catch {
      // Then it holds until the page is left.
    }
    show(name);
    announce(`Colours: ${WORDS[name]}`);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show(name));
}
