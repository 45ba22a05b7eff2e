// Requests to the member that served this page, and to no other.

import { byId, say } from "./dom.js";
import { fromText, toBinary } from "./octets.js";

/** The addresses are relative to the page's, so that a proxy may put it elsewhere. */
const ROOT = new URL("../../", document.location.href.split(/[?#]/)[0]);
const CREDENTIALS = "kvdb.authorization"; // in sessionStorage: gone with the tab
const MAX_WAIT_MS = 60000; // that an answer may ask for
const FOREIGN = "what answers is no kvdb: a proxy, perhaps";

export const POLL_TIMEOUT_MS = 4000;
export const REQUEST_TIMEOUT_MS = 15000;
const MAX_EVENT_CHARS = 32 << 20; // of a watch's event; a value of 8 MiB takes 11 MiB

/**
 * A request that came to nothing.
 *
 * `status` is that of the answer, or 0 where none came from kvdb; `own` says that kvdb
 * told why.  `waitMs` is how long it asks to wait.  `unknown` says that a write may yet
 * have been carried out.
 */
export class Problem extends Error {
  constructor(status, detail, { hint = "", etag = null, own = false, waitMs = 0 } = {}) {
    super(detail);
    this.status = status;
    this.hint = hint;
    this.etag = etag;
    this.own = own;
    this.waitMs = waitMs;
  }

  get unknown() {
    // A proxy's 503 does not say that nothing was done: kvdb's own does.
    if (this.own && (this.status === 503 || this.status === 507)) return false;
    return this.status === 0 || this.status >= 500;
  }

  get refused() {
    return this.status === 401 || this.status === 403;
  }
}

export const url = (path) => new URL(path, ROOT);

let credentials = remembered();

function remembered() {
  try {
    return sessionStorage.getItem(CREDENTIALS);
  } catch {
    return null; // storage is switched off
  }
}

function headersOf(more) {
  const headers = new Headers(more);
  if (credentials) headers.set("Authorization", credentials);
  return headers;
}

/** `shown` is who asked; `quiet`, that nobody is to be asked to sign in for this. */
async function problemOf(answer, shown, quiet = false) {
  let told = null;
  try {
    told = await answer.json();
  } catch {
    // A proxy's page, perhaps: the status says enough.
  }
  const own = typeof told?.detail === "string";
  const detail = own ? told.detail : `the server answered ${answer.status} ${answer.statusText}`.trim();
  const seconds = Number(answer.headers.get("retry-after") ?? 0);
  const problem = new Problem(answer.status, detail, {
    hint: typeof told?.hint === "string" ? told.hint : "",
    etag: answer.headers.get("etag"),
    own,
    waitMs: seconds > 0 ? Math.min(1000 * seconds, MAX_WAIT_MS) : 0,
  });
  // Late answers are to whoever asked before.
  if (problem.refused && shown === credentials) refused(problem, quiet);
  return problem;
}

/**
 * An answer, with a status below 400; else a Problem is thrown.  `expect` is the one
 * status that is an answer of kvdb's, where there is but one.
 */
export async function ask(path, { method = "GET", headers = {}, body, signal, timeout, expect, quiet } = {}) {
  const limit = AbortSignal.timeout(timeout ?? REQUEST_TIMEOUT_MS);
  const shown = credentials;
  let answer;
  try {
    answer = await fetch(url(path), {
      method,
      headers: headersOf(headers),
      body,
      // The browser's own prompt for a password would come in the way.
      credentials: "omit",
      redirect: "error",
      cache: "no-store",
      referrerPolicy: "no-referrer",
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(0, limit.aborted ? "this member has not answered in time"
      : "this member cannot be reached");
  }
  if (!answer.ok) throw await problemOf(answer, shown, quiet);
  if (expect !== undefined && answer.status !== expect) throw new Problem(0, FOREIGN);
  if (shown && shown === credentials) showSignedIn(true);
  return answer;
}

async function read(answer, how) {
  try {
    return await answer[how]();
  } catch {
    throw new Problem(0, "the answer was cut off");
  }
}

export const askText = async (path, options) => read(await ask(path, options), "text");

/** What JSON says, an object; `passes` knows what kvdb answers there. */
export async function askJSON(path, passes, options) {
  const text = await askText(path, options);
  let told;
  try {
    told = JSON.parse(text, whole);
  } catch {
    throw new Problem(0, FOREIGN);
  }
  if (typeof told !== "object" || told === null || !passes(told)) throw new Problem(0, FOREIGN);
  return told;
}

/** Integers that a number does not hold, as ids may be, are BigInt. */
function whole(_, value, context) {
  const isOff = typeof value === "number" && Math.abs(value) > Number.MAX_SAFE_INTEGER;
  return isOff && /^-?\d+$/.test(context?.source ?? "") ? BigInt(context.source) : value;
}

export const isId = (value) => Number.isInteger(value) || typeof value === "bigint";

/** A key's value; it comes with an entity tag. */
export async function askBytes(path, options) {
  const answer = await ask(path, options);
  const etag = answer.headers.get("etag");
  if (etag === null) throw new Problem(0, FOREIGN);
  return { octets: new Uint8Array(await read(answer, "arrayBuffer")), etag };
}

/** A token for one write, which a retry of it repeats. */
export function newToken() {
  const drawn = crypto.getRandomValues(new Uint8Array(16));
  return "ui-" + Array.from(drawn, (b) => b.toString(16).padStart(2, "0")).join("");
}

/**
 * Server-Sent Events over fetch, which unlike EventSource can say who asks.
 *
 * Gives [event, id, data] one by one; ends when the stream does.
 */
export async function* events(path, signal) {
  const shown = credentials;
  let answer;
  try {
    answer = await fetch(url(path), {
      headers: headersOf({ Accept: "text/event-stream" }),
      credentials: "omit", redirect: "error", cache: "no-store",
      referrerPolicy: "no-referrer", signal,
    });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Problem(0, "this member cannot be reached");
  }
  if (!answer.ok) throw await problemOf(answer, shown);
  if (!/^text\/event-stream\b/.test(answer.headers.get("content-type") ?? "")) {
    answer.body?.cancel().catch(() => {});
    throw new Problem(0, FOREIGN);
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  let [name, id, data, chars] = ["message", null, [], 0];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      held += value;
      if (held.length + chars > MAX_EVENT_CHARS) throw new Problem(0, "an event is too long");
      // A line's end may be cut in two: what is left waits for more.
      const lines = held.split(/\r\n|\n|\r(?!$)/);
      held = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (data.length) yield [name, id, data.join("\n")];
          [name, data, chars] = ["message", [], 0];
          continue;
        }
        const colon = line.indexOf(":");
        const key = colon < 0 ? line : line.slice(0, colon);
        const rest = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (key === "event") name = rest;
        else if (key === "data") {
          data.push(rest);
          chars += line.length;
        }
        else if (key === "id") id = rest;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// Who asks.

const listeners = [];
let declined = false; // then it is not asked for again until somebody wants to

/** Call `listener` when somebody has signed in or out. */
export const onCredentials = (listener) => listeners.push(listener);

function showSignedIn(isSo) {
  say(byId("sign-in"), isSo ? "Signed in" : "Sign in");
}

function refused(problem, quiet) {
  byId("sign-in").hidden = false;
  // 403 is also what a user who is known may not do: said where it was tried.
  if (problem.status !== 401) return;
  showSignedIn(false);
  if (!declined && !quiet) askForCredentials(problem.message);
}

export function askForCredentials(why = "") {
  const dialog = byId("login");
  if (dialog.open || byId("confirm").open) return;
  byId("login-words").textContent = why
    ? why[0].toUpperCase() + why.slice(1) + (/[.!?]$/.test(why) ? "" : ".")
    : "Who asks, as this server knows it.";
  byId("login-out").hidden = !credentials;
  declined = true;
  dialog.showModal();
}

function keep(shown) {
  credentials = shown;
  try {
    if (shown) sessionStorage.setItem(CREDENTIALS, shown);
    else sessionStorage.removeItem(CREDENTIALS);
  } catch {
    // Then they hold until the page is left.
  }
  showSignedIn(Boolean(shown));
  declined = false;
  byId("login").close();
  for (const listener of listeners) listener();
}

/** Nothing that was shown to whoever signs out is left, for the eye or in memory. */
function signOut() {
  keep(null);
  location.reload();
}

export function prepareLogin() {
  const dialog = byId("login");
  const form = byId("login-form");
  const signIn = byId("sign-in");
  const basic = () => form.elements.kind.value === "basic";
  if (credentials) {
    signIn.hidden = false;
    showSignedIn(true);
  }
  signIn.addEventListener("click", () => askForCredentials());
  form.addEventListener("change", () => {
    for (const field of form.querySelectorAll("[data-kind]")) {
      field.hidden = (field.dataset.kind === "basic") !== basic();
    }
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const pair = `${byId("login-user").value}:${byId("login-password").value}`;
    keep(basic() ? "Basic " + btoa(toBinary(fromText(pair)))
      : "Bearer " + toBinary(fromText(byId("login-token").value.trim())));
  });
  byId("login-out").addEventListener("click", signOut);
  byId("login-no").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    byId("login-password").value = byId("login-token").value = "";
  });
}
