// Elections, comings and goings: what differs between one status and the next.

import { byId, make } from "./dom.js";
import { clock } from "./words.js";

const MAX_EVENTS = 200; // shown; the oldest go

/** [kind, text] for each difference; kinds are good, warn, bad and plain. */
export function changes(before, now) {
  const found = [];
  if (before.leader !== now.leader) {
    if (now.leader === null) found.push(["bad", `Member ${before.leader} leads no longer, and nobody does`]);
    else if (now.led === before.led) found.push(["good", `Member ${now.leader} is heard again, and leads as before in term ${now.term}`]);
    else found.push(["good", `Member ${now.leader} was elected leader in term ${now.term}`]);
  } else if (now.term > before.term) {
    if (now.leader === null) found.push(["warn", `An election: term ${now.term}`]);
    else found.push(["plain", `Member ${now.leader} was elected again, in term ${now.term}`]);
  }
  const was = new Map(before.members.map((member) => [member.id, member]));
  for (const member of now.members) {
    const old = was.get(member.id);
    was.delete(member.id);
    if (!old) {
      found.push(["good", `Member ${member.id} was added${member.voter ? "" : ", as a learner"}: ${member.url}`]);
      continue;
    }
    if (!old.voter && member.voter) found.push(["good", `Member ${member.id} has caught up and is a voter`]);
    if (old.url !== member.url) found.push(["plain", `Member ${member.id} has moved to ${member.url}`]);
    if (old.version && member.version && old.version !== member.version) {
      found.push(["plain", `Member ${member.id} runs kvdb ${member.version} now, before it was ${old.version}`]);
    }
    const [then, here] = [old, member].map((one) => one.state === "up" || one.state === "self");
    if (then && !here) found.push(["bad", `Member ${member.id} cannot be reached${member.state === "silent" ? ": it is silent" : ""}`]);
    if (!then && here) found.push(["good", `Member ${member.id} is in touch again`]);
  }
  for (const id of was.keys()) found.push(["warn", `Member ${id} was removed`]);
  // Links of others: those of a member that is away are told already.
  const up = new Set(now.members.filter((m) => m.state === "up").map((m) => m.id));
  const links = new Map(before.links.map((link) => [`${link.a}-${link.b}`, link.state]));
  for (const { a, b, state } of now.links) {
    const old = links.get(`${a}-${b}`);
    if (!up.has(a) || !up.has(b) || old === state) continue;
    if (old === "up" && state === "down") found.push(["warn", `The link between ${a} and ${b} is down`]);
    if (old === "down" && state === "up") found.push(["plain", `The link between ${a} and ${b} is up again`]);
  }
  return found;
}

/** Alarms that came and went. */
export function alarmChanges(before, now) {
  // A number in them counts up: the same alarm still.
  const shape = (text) => text.replace(/[\d.]+/g, "#");
  const [old, fresh] = [before, now].map((texts) => new Map(texts.map((text) => [shape(text), text])));
  return [
    ...[...fresh].filter(([key]) => !old.has(key)).map(([, text]) => ["bad", `Alarm: ${text}`]),
    ...[...old].filter(([key]) => !fresh.has(key)).map(([, text]) => ["good", `Over: ${text}`]),
  ];
}

export function tell(kind, text) {
  const box = byId("events");
  const now = new Date();
  box.prepend(make("li", { "data-kind": kind },
    make("time", { datetime: now.toISOString() }, clock(now)),
    make("span", { class: "event-mark", "aria-hidden": "true" }),
    make("span", {}, text)));
  while (box.children.length > MAX_EVENTS) box.lastElementChild.remove();
}
