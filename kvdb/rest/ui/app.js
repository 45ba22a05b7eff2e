// The dashboard: what is asked, how often, and where the answers are shown.

import { askJSON, askText, isId, onCredentials, POLL_TIMEOUT_MS, prepareLogin, Problem } from "./api.js";
import { Charts } from "./charts.js";
import { capital, prepareDialogs } from "./dialogs.js";
import { byId, make, mark, say } from "./dom.js";
import { alarmChanges, changes, tell } from "./events.js";
import { Keys } from "./keys.js";
import { Members } from "./members.js";
import { parse, total } from "./metrics.js";
import { picture, verdict } from "./picture.js";
import { Ring } from "./ring.js";
import { prepareTheme } from "./theme.js";
import { bytes, clock, count } from "./words.js";

const POLL_MS = 1000;
const HIDDEN_POLL_MS = 10000; // while nobody looks
const METRICS_EVERY = 2; // polls
const METRICS_AGAIN_MS = 30000; // after an answer that there are none

prepareTheme();
prepareDialogs();
prepareLogin();

const ring = new Ring(byId("ring"));
const members = new Members(() => poll.now());
const charts = new Charts();
const keys = new Keys();

let shown = null; // the last status, and the picture of it
let failingSince = null;
let failing = null; // the last problem

// What is asked again and again.

const isStatus = (told) => isId(told.id) && Array.isArray(told.members)
  && told.members.every((member) => isId(member?.id));

const poll = {
  timer: 0,
  running: false,
  round: 0,
  metricsAfter: 0,
  noMetrics: "", // why there are none

  async now() {
    clearTimeout(this.timer);
    if (this.running) return;
    this.running = true;
    let wait = 0;
    try {
      const wantsMetrics = this.round++ % METRICS_EVERY === 0;
      const metrics = wantsMetrics ? this.metrics() : null;
      const status = await askJSON("_/status", isStatus, { timeout: POLL_TIMEOUT_MS });
      show(status);
      if (wantsMetrics) showMetrics(status, await metrics);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      wait = error.waitMs;
      showFailure(error);
    } finally {
      this.running = false;
      this.timer = setTimeout(() => this.now(), Math.max(wait, document.hidden ? HIDDEN_POLL_MS : POLL_MS));
    }
  },

  async metrics() {
    if (performance.now() < this.metricsAfter) return null;
    try {
      return parse(await askText("metrics", { timeout: POLL_TIMEOUT_MS, quiet: true }));
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.noMetrics = error.refused ? "this member's metrics are not for whoever asks" : "this member tells no metrics";
      if (error.status >= 400 && error.status < 500) this.metricsAfter = performance.now() + METRICS_AGAIN_MS;
      return null;
    }
  },
};

// The cluster.

function show(status) {
  const seen = picture(status, shown?.seen);
  if (failingSince !== null && !failing.refused) tell("good", `Member ${status.id} answers again`);
  failingSince = failing = null;
  if (shown === null) {
    tell("plain", `Looking, through member ${status.id}: ${seen.leader === null ? "nobody leads" : `member ${seen.leader} leads`} in term ${seen.term}`);
  } else {
    for (const [kind, text] of [...changes(shown.seen, seen), ...alarmChanges(shown.status.alarms ?? [], status.alarms ?? [])]) tell(kind, text);
  }
  shown = { status, seen };
  const [state, headline, subline] = verdict(status, seen);
  showHealth(state, headline, subline);
  showPulse("good", `Live, by member ${status.id}`);
  showAlarms(status);
  facts.show(status, seen);
  ring.show(seen, status.commit_index);
  members.show(seen);
  mark(byId("view-cluster"), "data-old", null);
  document.title = (state === "good" ? "" : "● ") + `kvdb ${status.id}: ${headline}`;
  say(byId("foot-text"), `kvdb ${status.version} · cluster ${status.cluster_id} · served by member ${status.id}`);
}

function showFailure(problem) {
  const who = shown ? `Member ${shown.status.id}` : "This member";
  const asksToWait = problem.status === 429;
  const isOut = members.isOut && problem.status === 0;
  const text = isOut ? `${who} was removed` : problem.status === 0 ? `${who} does not answer`
    : asksToWait ? `${who} asks to wait` : `${who} answers with an error`;
  if (failing === null || failing.refused) {
    failingSince = new Date();
    if (!problem.refused) tell(isOut ? "warn" : "bad", text);
  }
  failing = problem;
  if (problem.refused) {
    showHealth("wait", "Sign in to see the cluster", capital(problem.message) + ".");
    showPulse("wait", "Not signed in");
    document.title = "kvdb: sign in";
  } else if (isOut) {
    showHealth("wait", text, "It has ended, and its page with it. What is below is from before; others have pages of their own.");
    showPulse("wait", "Removed");
    document.title = `kvdb: ${text}`;
  } else {
    const hint = problem.hint ? ` ${problem.hint}` : "";
    showHealth(asksToWait ? "wait" : "bad", text,
      `Since ${clock(failingSince)}: ${problem.message}.${hint}`
      + (shown ? " What is below is from before; other members may be well." : ""));
    showPulse(asksToWait ? "wait" : "bad", problem.status === 0 ? "No answer" : asksToWait ? "Waiting" : "An error");
    document.title = `● kvdb: ${problem.status === 0 ? "no answer" : problem.message}`;
  }
  mark(byId("view-cluster"), "data-old", shown ? "yes" : null);
}

function showHealth(state, headline, subline) {
  mark(byId("health"), "data-state", state);
  say(byId("headline"), headline);
  say(byId("subline"), subline);
}

function showPulse(state, text) {
  mark(byId("pulse"), "data-state", state);
  say(byId("pulse-text"), text);
}

let alarmsShown = "";

function showAlarms(status) {
  const alarms = (status.alarms ?? []).map((text) => ["alarm", text]);
  const warnings = (status.warnings ?? []).map((text) => ["warning", text]);
  const all = [...alarms, ...warnings];
  const text = JSON.stringify(all);
  if (text === alarmsShown) return;
  alarmsShown = text;
  byId("alarms").replaceChildren(...all.map(([kind, words]) =>
    make("li", { "data-kind": kind }, make("strong", {}, capital(kind)), make("span", {}, capital(words) + "."))));
  byId("alarms").hidden = all.length === 0;
}

const facts = {
  outputs: new Map(),
  more: {},

  show(status, seen) {
    const told = [
      ["Term", count(status.term)],
      ["Revision", count(status.revision)],
      ["Committed", count(status.commit_index)],
      ["Applied", count(status.applied_index)],
      ["Voters", `${seen.reached} of ${seen.voters}`],
      ["Store", bytes(status.store_bytes)],
      ["Log", bytes(status.log_bytes)],
      ...Object.entries(this.more),
    ];
    for (const [name, value] of told) {
      if (!this.outputs.has(name)) {
        const output = make("dd", {});
        byId("facts").append(make("div", {}, make("dt", {}, name), output));
        this.outputs.set(name, output);
      }
      say(this.outputs.get(name), value);
    }
    // What is told no longer is not known.
    const names = new Set(told.map(([name]) => name));
    for (const [name, output] of this.outputs) {
      if (names.has(name)) continue;
      output.parentElement.remove();
      this.outputs.delete(name);
    }
  },
};

function showMetrics(status, reading) {
  charts.add(Date.now() / 1000, status.revision, reading);
  say(byId("charts-note"), reading ? "the last five minutes" : `the last five minutes; ${poll.noMetrics}`);
  facts.more = {};
  const pending = total(reading, "kvdb_server_proposals_pending");
  const connections = total(reading, "kvdb_http_connections");
  if (pending !== null) facts.more.Pending = count(pending);
  if (connections !== null) facts.more.Connections = count(connections);
}

// Views.

function route() {
  const [path, query = ""] = location.hash.slice(1).split("?");
  const wantsKeys = path === "/keys";
  byId("view-cluster").hidden = wantsKeys;
  byId("view-keys").hidden = !wantsKeys;
  mark(byId("nav-cluster"), "aria-current", wantsKeys ? null : "page");
  mark(byId("nav-keys"), "aria-current", wantsKeys ? "page" : null);
  if (wantsKeys) keys.enter(query);
  else keys.leave();
}

// "Skip to the content" must not be taken for a view.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});
addEventListener("hashchange", route);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) poll.now();
});
onCredentials(() => {
  poll.metricsAfter = 0;
  poll.now();
});
route();
poll.now();
