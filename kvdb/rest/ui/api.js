// Requests to the member that served this page, and to no other.

import { byId } from "./dom.js";
import { fromText, toBinary } from "./octets.js";

/** The addresses are relative to the page's, so that a proxy may put it elsewhere. */
const ROOT = new URL("../../", document.location.href.split(/[?#]/)[0]);
const CREDENTIALS = "kvdb.authorization"; // in sessionStorage: gone with the tab

export const POLL_TIMEOUT_MS = 4000;
export const REQUEST_TIMEOUT_MS = 15000;
const MAX_EVENT_CHARS = 32 << 20; // of a watch's event; a value of 8 MiB takes 11 MiB

/**
 * A request that came to nothing.
 *
 * `status` is that of the answer, or 0 where none came.  `unknown` says that a write
 * may yet have been carried out.
 */
export class Problem extends Error {
  constructor(status, detail, hint = "", etag = null) {
    super(detail);
    this.status = status;
    this.hint = hint;
    this.etag = etag;
  }

  get unknown() {
    return this.status === 0 || this.status === 504 || this.status === 500;
  }
}

export const url = (path) => new URL(path, ROOT);

function headersOf(more) {
  const headers = new Headers(more);
  const credentials = sessionStorage.getItem(CREDENTIALS);
  if (credentials) headers.set("Authorization", credentials);
  return headers;
}

async function problemOf(answer) {
  let told = {};
  try {
    told = await answer.json();
  } catch {
    // A proxy's page, perhaps: the status says enough.
  }
  const detail = typeof told.detail === "string" ? told.detail
    : typeof told.reason === "string" ? told.reason
    : `the server answered ${answer.status} ${answer.statusText}`.trim();
  const problem = new Problem(answer.status, detail,
    typeof told.hint === "string" ? told.hint : "", answer.headers.get("etag"));
  if (answer.status === 401 || answer.status === 403) refused(problem);
  return problem;
}

/** An answer, with a status below 400; else a Problem is thrown. */
export async function ask(path, { method = "GET", headers = {}, body, signal, timeout } = {}) {
  const limit = AbortSignal.timeout(timeout ?? REQUEST_TIMEOUT_MS);
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
  if (!answer.ok) throw await problemOf(answer);
  return answer;
}

async function read(answer, how) {
  try {
    return await answer[how]();
  } catch {
    throw new Problem(0, "the answer was cut off");
  }
}

export const askJSON = async (path, options) => read(await ask(path, options), "json");
export const askText = async (path, options) => read(await ask(path, options), "text");
export async function askBytes(path, options) {
  const answer = await ask(path, options);
  const octets = new Uint8Array(await read(answer, "arrayBuffer"));
  return { octets, etag: answer.headers.get("etag") };
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
  if (!answer.ok) throw await problemOf(answer);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  let [name, id, data] = ["message", null, []];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      held += value;
      if (held.length > MAX_EVENT_CHARS) throw new Problem(0, "an event is too long");
      // A line's end may be cut in two: what is left waits for more.
      const lines = held.split(/\r\n|\n|\r(?!$)/);
      held = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (data.length) yield [name, id, data.join("\n")];
          [name, data] = ["message", []];
          continue;
        }
        const colon = line.indexOf(":");
        const key = colon < 0 ? line : line.slice(0, colon);
        const rest = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (key === "event") name = rest;
        else if (key === "data") data.push(rest);
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

function refused(problem) {
  byId("sign-in").hidden = false;
  // 403 is also what a user who is known may not do: said where it was tried.
  if (problem.status === 401 && !declined) askForCredentials(problem.message);
}

export function askForCredentials(why = "") {
  const dialog = byId("login");
  if (dialog.open || byId("confirm").open) return;
  byId("login-words").textContent = why
    ? why[0].toUpperCase() + why.slice(1) + (/[.!?]$/.test(why) ? "" : ".")
    : "Who asks, as this server knows it.";
  byId("login-out").hidden = !sessionStorage.getItem(CREDENTIALS);
  declined = true;
  dialog.showModal();
}

function keep(credentials) {
  if (credentials) sessionStorage.setItem(CREDENTIALS, credentials);
  else sessionStorage.removeItem(CREDENTIALS);
  byId("sign-in").textContent = credentials ? "Signed in" : "Sign in";
  declined = false;
  byId("login").close();
  for (const listener of listeners) listener();
}

export function prepareLogin() {
  const dialog = byId("login");
  const form = byId("login-form");
  const signIn = byId("sign-in");
  const basic = () => form.elements.kind.value === "basic";
  if (sessionStorage.getItem(CREDENTIALS)) {
    signIn.hidden = false;
    signIn.textContent = "Signed in";
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
  byId("login-out").addEventListener("click", () => keep(null));
  byId("login-no").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    byId("login-password").value = byId("login-token").value = "";
  });
}
