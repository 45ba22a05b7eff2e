// The members on a circle, and the links between them.

import { draw, mark, say } from "./dom.js";
import { stateWords } from "./picture.js";
import { list } from "./words.js";

const WIDTH = 380;
const HEIGHT = 300;
const SHORT_DIGITS = 3; // of an id, in a large type
const MAX_DIGITS = 4; // of an id that stands as it is
const PULSE_MS = 700;
const MAX_DRAWN = 15; // beyond it a circle is no picture any more; the table has all

const still = matchMedia("(prefers-reduced-motion: reduce)");

function places(many) {
  const [x, y] = [WIDTH / 2, HEIGHT / 2];
  if (many === 1) return [[x, y]];
  const first = many === 2 ? Math.PI : -Math.PI / 2;
  const far = many > 7 ? 112 : 100;
  return Array.from({ length: many }, (_, at) => {
    const angle = first + (2 * Math.PI * at) / many;
    return [x + far * 1.2 * Math.cos(angle), y + far * Math.sin(angle)];
  });
}

export class Ring {
  #svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", class: "ring" });
  #nodes = new Map(); // id -> its elements and place
  #links = new Map(); // "a-b" -> its line
  #pulses = draw("g", {});
  #drawn = "";
  #commit = null;

  constructor(box) {
    box.append(this.#svg);
  }

  show(seen, commit) {
    const members = seen.members.slice(0, MAX_DRAWN);
    const shape = members.map((member) => member.id).join(" ");
    if (shape !== this.#drawn) this.#build(members, seen.links);
    this.#drawn = shape;
    for (const link of seen.links) {
      const line = this.#links.get(`${link.a}-${link.b}`);
      if (!line) continue;
      mark(line, "data-state", link.state);
      mark(line, "data-leads", link.state === "up" && (link.a === seen.leader || link.b === seen.leader) ? "yes" : null);
    }
    for (const member of members) this.#showNode(member, seen.last);
    mark(this.#svg, "aria-label", this.#words(seen));
    if (this.#commit !== null && commit > this.#commit) this.#pulse(seen);
    this.#commit = commit;
  }

  #build(members, links) {
    this.#nodes.clear();
    this.#links.clear();
    const at = places(members.length);
    const size = members.length > 7 ? 20 : 28;
    const place = new Map(members.map((member, index) => [member.id, at[index]]));
    const lines = draw("g", {});
    for (const { a, b } of links) {
      if (!place.has(a) || !place.has(b)) continue;
      const [[x1, y1], [x2, y2]] = [place.get(a), place.get(b)];
      const line = draw("line", { class: "link", x1, y1, x2, y2 });
      this.#links.set(`${a}-${b}`, line);
      lines.append(line);
    }
    const nodes = draw("g", {});
    for (const member of members) {
      const [x, y] = place.get(member.id);
      const arc = draw("circle", { class: "arc", r: size, pathLength: 100, transform: "rotate(-90)" });
      const id = `${member.id}`;
      const text = id.length > MAX_DIGITS ? `…${id.slice(-SHORT_DIGITS)}` : id; // the table has all
      const role = draw("text", { class: "role", y: size + 17 });
      const group = draw("g", { class: "node", transform: `translate(${x} ${y})` },
        draw("circle", { class: "halo", r: size + 5 }),
        draw("circle", { class: "disc", r: size }),
        arc,
        draw("path", { class: "crown", transform: `translate(0 ${-size - 5})`, d: "M-10 0 L-11 -11 L-5 -5.5 L0 -13 L5 -5.5 L11 -11 L10 0 Z" }),
        draw("text", { class: "id", y: size > 20 ? 7 : 5, "data-long": text.length > SHORT_DIGITS }, text),
        role);
      this.#nodes.set(member.id, { group, arc, role, x, y });
      nodes.append(group);
    }
    this.#svg.replaceChildren(lines, this.#pulses, nodes);
  }

  #showNode(member, last) {
    const { group, arc, role } = this.#nodes.get(member.id);
    mark(group, "data-role", member.role);
    mark(group, "data-state", member.state);
    const held = member.match ?? member.applied;
    const part = held === null || last === 0 ? 100 : Math.min(100, (100 * held) / last);
    mark(arc, "stroke-dasharray", `${part.toFixed(1)} 100`);
    say(role, member.state === "down" || member.state === "silent" ? stateWords(member) : member.role);
  }

  #words(seen) {
    const down = seen.links.filter((link) => link.state === "down");
    return `${seen.members.length} members on a circle. `
      + (seen.leader === null ? "Nobody leads. " : `Member ${seen.leader} leads. `)
      + (down.length ? `Links down: ${list(down.map((link) => `${link.a} to ${link.b}`))}.` : "No link is down.");
  }

  /** Something was committed: it went from the leader to the others. */
  #pulse(seen) {
    const from = this.#nodes.get(seen.leader);
    if (still.matches || document.hidden || !from) return;
    for (const { a, b, state } of seen.links) {
      const other = a === seen.leader ? b : b === seen.leader ? a : null;
      const to = this.#nodes.get(other);
      if (!to || state !== "up") continue;
      const dot = draw("circle", { class: "pulse-dot", r: 4 });
      this.#pulses.append(dot);
      const moves = dot.animate(
        [{ transform: `translate(${from.x}px, ${from.y}px)` }, { transform: `translate(${to.x}px, ${to.y}px)` }],
        { duration: PULSE_MS, easing: "cubic-bezier(.4, 0, .3, 1)" });
      moves.onfinish = moves.oncancel = () => dot.remove();
    }
  }
}
