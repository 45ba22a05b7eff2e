// What a member's status tells of the cluster, as people draw Raft.
//
// Pure: from the JSON of /_/status to what is shown, in words and numbers.

import { list, plural } from "./words.js";

/**
 * A member's report of itself that is older, in seconds, says nothing of now.  They
 * come each second; the server forgets one after five.
 */
export const FRESH_SECONDS = 4;

const number = (value) => (typeof value === "number" ? value : null);
const fresh = (member) => number(member.age_seconds) !== null && member.age_seconds <= FRESH_SECONDS;

/** `reported`: whether it has told of itself since it was last connected. */
function stateOf(member, self, reported) {
  if (member.id === self) return "self";
  if (member.connected === false) return "down";
  return reported && !fresh(member) ? "silent" : "up";
}

/** An address that may be followed: another member's, and told by it. */
function safeAddress(text) {
  try {
    const parsed = new URL(text);
    return ["http:", "https:"].includes(parsed.protocol) ? parsed : null;
  } catch {
    return null;
  }
}

/** The state of the link between two members, from what each of them says. */
function linkBetween(a, b, self, states) {
  const said = [];
  for (const [from, to] of [[a, b], [b, a]]) {
    if (from.id === self) {
      if (typeof to.connected === "boolean") said.push(to.connected);
    } else if (Array.isArray(from.links) && fresh(from)) {
      said.push(from.links.includes(to.id));
    }
  }
  if (!said.length) return "unknown";
  // One member's silence is no link, whatever its sockets look like.
  if ([a, b].some((member) => states.get(member.id) === "silent")) return "down";
  return said.every(Boolean) ? "up" : "down";
}

/** `before` is the picture of the status before, or null. */
export function picture(status, before = null) {
  const raw = Array.isArray(status.members) ? status.members : [];
  const self = status.id;
  const reported = new Set(raw.filter((member) => member.connected !== false
    && (number(member.age_seconds) !== null || before?.reported.has(member.id))).map((member) => member.id));
  const states = new Map(raw.map((member) => [member.id, stateOf(member, self, reported.has(member.id))]));
  const known = raw.flatMap((m) => [number(m.match_index), number(m.last_index)]).filter((value) => value !== null);
  const last = Math.max(status.commit_index ?? 0, status.applied_index ?? 0, ...known, 0);
  const members = raw.map((member) => {
    const own = member.id === self;
    // What the leader knows, else what the member says of itself.
    const match = number(member.match_index) ?? number(member.last_index);
    const applied = own ? status.applied_index : number(member.applied_index);
    const leads = member.id === status.leader;
    return {
      id: member.id,
      url: String(member.url ?? ""),
      own,
      leads,
      role: own ? status.role : leads ? "leader" : member.role === "unknown" ? "voter" : member.role,
      voter: member.role !== "learner",
      state: states.get(member.id),
      age: number(member.age_seconds),
      term: own ? status.term : number(member.term),
      match,
      applied,
      lag: number(member.lag) ?? (leads ? 0 : null),
      page: member.client_url ? safeAddress(member.client_url) : null,
      version: own ? status.version : member.version ?? null,
      storeBytes: own ? status.store_bytes : number(member.store_bytes),
    };
  });
  const links = [];
  raw.forEach((a, at) => raw.slice(at + 1).forEach((b) =>
    links.push({ a: a.id, b: b.id, state: linkBetween(a, b, self, states) })));
  const voters = members.filter((member) => member.voter);
  return {
    self,
    reported,
    leader: status.leader ?? null,
    // Who was last known to lead, and when: to tell an election from hearing again.
    led: status.leader == null ? before?.led ?? null : `${status.leader} in ${status.term}`,
    term: status.term,
    last,
    members,
    links,
    voters: voters.length,
    quorum: Math.floor(voters.length / 2) + 1,
    reached: voters.filter((member) => member.state === "self" || member.state === "up").length,
  };
}

/** A member's state, in a few words. */
export function stateWords(member) {
  switch (member.state) {
    case "self": return "this member";
    case "up": return "in touch";
    case "silent": return member.age === null ? "silent" : `silent for ${Math.round(member.age)} s`;
    default: return "no connection";
  }
}

const who = (members) =>
  (members.length === 1 ? "Member " : "Members ") + list(members.map((member) => member.id));

/** How many more voters may fail. */
export const spare = (seen) => Math.max(0, seen.reached - seen.quorum);

/** How the cluster is: a state (good, warn, bad), a headline, and a sentence more. */
export function verdict(status, seen) {
  const away = seen.members.filter((m) => m.state === "down" || m.state === "silent");
  const learners = seen.members.filter((m) => m.role === "learner");
  const bears = spare(seen) === 0 ? "The cluster bears no further loss of a voter."
    : `The cluster bears the loss of ${spare(seen) === 1 ? "one voter" : plural(spare(seen), "voter")}.`;
  if (seen.reached < seen.quorum) {
    return ["bad", "Fewer than a majority can be reached",
      `${seen.reached} of ${plural(seen.voters, "voter")} can be reached from here, and ${seen.quorum} are needed.`
      + " Writes and linearizable reads wait; nothing is lost."];
  }
  if (seen.leader === null) {
    return ["bad", "No leader is known",
      `Member ${seen.self} is ${status.role === "candidate" ? "standing for election" : "waiting for an election"} in term ${seen.term}.`
      + " Writes and linearizable reads wait until somebody leads."];
  }
  const leads = `Member ${seen.leader} leads in term ${seen.term}.`;
  const voter = away.some((member) => member.voter);
  if (away.length && !voter) {
    return ["warn", `${who(away)} ${away.length === 1 ? "is" : "are"} joining, and not in touch`,
      `Start ${away.length === 1 ? "it" : "them"}, if that is still to do; nobody waits for a learner. ${leads} ${bears}`];
  }
  if (away.length) {
    return ["warn", `${who(away)} cannot be reached`,
      `The other ${seen.reached} of ${seen.voters} voters are a majority: reads and writes go on. ${leads} ${bears}`];
  }
  if (status.alarms?.length) return ["bad", "Something is wrong", `${leads} ${bears}`];
  if (learners.length) {
    return ["good", `${who(learners)} ${learners.length === 1 ? "is" : "are"} joining`,
      `Made ${learners.length === 1 ? "a voter" : "voters"} once caught up. ${leads} ${bears}`];
  }
  return ["good", seen.members.length === 1 ? "The only member is well" : `All ${seen.members.length} members are in touch`,
    `${leads} ${bears}`];
}
