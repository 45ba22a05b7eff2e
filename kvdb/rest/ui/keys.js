// Keys by prefix, a page at a time, and their changes as they happen.

import { askJSON, events, onCredentials, Problem } from "./api.js";
import { Detail } from "./detail.js";
import { capital } from "./dialogs.js";
import { byId, hideProblem, make, mark, say, showProblem } from "./dom.js";
import { field, fromText, isPlain, percent, readable, toBinary, toText, unpercent } from "./octets.js";
import { bytes, clock, count, plural } from "./words.js";

const PREVIEW_CHARS = 160;
const MAX_BACK = 1000; // pages that can be gone back
const RENDER_MS = 150; // changes are gathered for so long
const QUIET_MS = 3000; // changes that follow each other faster are not read aloud
const GONE_MS = 4000; // a deleted key is still shown
const RETRY_MS = 1000;
const MAX_RETRY_MS = 15000;
const RESUME_MS = 30000; // after more, a page is asked for instead of what was missed

const PASSING = [408, 429]; // what is refused for now

const isPage = (told) => Number.isInteger(told.revision) && Array.isArray(told.keys);

const sleep = (ms, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, ms);
  signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
});

/** The address of this view. */
export function address(prefix, key = null) {
  const parts = [];
  if (prefix !== "/") parts.push("prefix=" + percent(prefix));
  if (key !== null) parts.push("key=" + percent(key));
  return "#/keys" + (parts.length ? "?" + parts.join("&") : "");
}

function preview(octets) {
  if (octets === null) return ["", ""];
  const text = toText(octets);
  if (text === null || !isPlain(text)) return [`binary, ${bytes(octets.length)}`, "binary"];
  if (text === "") return ["empty", "binary"];
  const line = text.slice(0, PREVIEW_CHARS).replace(/\s+/g, " ");
  return [text.length > PREVIEW_CHARS ? line + "…" : line, ""];
}

/** A key as a page or a change has it; of its value no more than is shown. */
const recordOf = (told) => ({
  preview: preview(field(told, "value")),
  revision: told.mod_revision ?? told.revision,
  created: told.create_revision ?? null,
  version: told.version ?? null,
  gone: false,
});

export class Keys {
  #inside = false;
  #prefix = "/";
  #start = null; // of this page; null for the first
  #back = []; // starts of the pages before
  #next = null;
  #records = new Map(); // key -> record, of this page
  #rows = new Map(); // key -> its elements
  #revision = 0; // all changes up to it are shown
  #heard = 0; // when it was so, in milliseconds since 1970
  #loading = null; // aborts what is under way
  #watching = null;
  #timer = 0;
  #said = -Infinity; // when a change was last told
  #flash = new Set();
  #loaded = false;

  constructor() {
    this.detail = new Detail({
      record: (key) => this.#records.get(key) ?? null,
      go: (key) => this.#go(this.#prefix, key),
      opened: () => this.#select(),
    });
    byId("prefix-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const text = byId("prefix").value;
      if (text !== readable(this.#prefix)) this.#go(toBinary(fromText(text.startsWith("/") ? text : "/" + text)), null);
      else this.#load(null, []);
    });
    byId("new-key").addEventListener("click", () => this.detail.begin(this.#prefix));
    byId("page-first").addEventListener("click", () => this.#load(null, []));
    byId("page-next").addEventListener("click", () => {
      this.#load(this.#next, [...this.#back, this.#start].slice(-MAX_BACK));
    });
    byId("page-back").addEventListener("click", () => this.#load(this.#back.at(-1) ?? null, this.#back.slice(0, -1)));
    byId("page-size").addEventListener("change", () => this.#load(null, []));
    byId("keys").addEventListener("keydown", (event) => this.#step(event));
    document.addEventListener("visibilitychange", () => {
      // A stream takes one of the few connections that a browser has to a server.
      if (!this.#inside) return;
      if (document.hidden) this.#unwatch();
      else if (this.#loaded) this.#watch();
    });
    onCredentials(() => {
      if (this.#inside) this.#load(this.#start, this.#back);
    });
  }

  enter(query) {
    const asked = Object.fromEntries(query.split("&").filter(Boolean).map((part) => {
      const [name, value = ""] = part.split("=");
      return [name, unpercent(value)];
    }));
    const prefix = asked.prefix || "/";
    const isNew = !this.#inside || prefix !== this.#prefix;
    if (prefix !== this.#prefix) this.#clear();
    this.#inside = true;
    this.#prefix = prefix;
    if (isNew) {
      byId("prefix").value = readable(prefix);
      this.#load(null, []);
    }
    this.detail.open(asked.key ?? null);
  }

  leave() {
    if (!this.#inside) return;
    this.#inside = false;
    this.#unwatch();
    this.#loading?.abort();
  }

  #go(prefix, key) {
    const hash = address(prefix, key);
    if (location.hash === hash) this.detail.open(key);
    else location.hash = hash;
  }

  // Pages.

  async #load(start, back) {
    this.#loading?.abort();
    this.#unwatch();
    const loading = this.#loading = new AbortController();
    mark(byId("keys"), "aria-busy", "true");
    let page;
    try {
      page = await this.#ask(start, loading.signal);
    } catch (error) {
      if (loading.signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      mark(byId("keys"), "aria-busy", null);
      if (error.refused) this.#clear();
      this.#showLive("wait", "Not live");
      showProblem(byId("list-problem"), capital(error.message) + ".", error.hint === "Try again." ? "" : error.hint,
        [["Try again", () => this.#load(start, back)]]);
      return;
    }
    mark(byId("keys"), "aria-busy", null);
    [this.#start, this.#back, this.#loaded] = [start, back, true];
    this.#take(page);
    if (!document.hidden) this.#watch();
  }

  #ask(start, signal) {
    const query = [`prefix=${percent(this.#prefix)}`, `limit=${byId("page-size").value}`];
    if (start !== null) query.push(`start=${percent(start)}`);
    return askJSON("_/kv?" + query.join("&"), isPage, { signal });
  }

  #take(page) {
    hideProblem(byId("list-problem"));
    this.#revision = page.revision;
    this.#heard = Date.now();
    const next = field(page, "next");
    this.#next = next === null ? null : toBinary(next);
    this.#records.clear();
    for (const told of page.keys) {
      const key = field(told, "key");
      if (key !== null) this.#records.set(toBinary(key), recordOf(told));
    }
    say(byId("last-change"), "");
    this.#render();
  }

  /** Nothing is shown until it is known what may be. */
  #clear() {
    [this.#start, this.#back, this.#next, this.#loaded] = [null, [], null, false];
    this.#records.clear();
    this.last = "";
    say(byId("last-change"), "");
    this.#render();
  }

  // Changes.

  #unwatch() {
    this.#watching?.abort();
    this.#watching = null;
  }

  async #watch() {
    this.#unwatch();
    const { signal } = (this.#watching = new AbortController());
    let wait = RETRY_MS;
    this.#showLive("wait", "Connecting");
    while (!signal.aborted) {
      let why = "the stream has ended";
      let asked = 0;
      try {
        if (Date.now() - this.#heard > RESUME_MS) {
          this.#take(await this.#ask(this.#start, signal));
          this.detail.missed();
        }
        const query = `prefix=${percent(this.#prefix)}&since=${this.#revision}`;
        for await (const [name, id, data] of events("_/watch?" + query, signal)) {
          if (signal.aborted) return;
          this.#heard = Date.now();
          const told = JSON.parse(data);
          if (name === "end") throw new Problem(told.status ?? 503, told.detail ?? why);
          if (name === "ready") {
            wait = RETRY_MS;
            this.#showLive("good", "Live");
          }
          if (name === "put" || name === "delete") this.#changed(name, told);
          if (/^\d+$/.test(id ?? "")) this.#revision = Number(id);
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Problem) [why, asked] = [error.message, error.waitMs];
        if (error.status === 410) this.#heard = 0; // what lies between is forgotten
        else if (error.status >= 400 && error.status < 500 && !PASSING.includes(error.status)) {
          this.#showLive("bad", "Not live", why);
          return;
        }
      }
      this.#showLive("wait", "Connecting again", why);
      await sleep(Math.max(wait, asked), signal);
      wait = Math.min(2 * wait, MAX_RETRY_MS);
    }
  }

  #showLive(state, text, why = "") {
    mark(byId("live"), "data-state", state);
    mark(byId("live"), "title", why || null);
    say(byId("live-text"), text);
  }

  #changed(name, told) {
    const octets = field(told, "key");
    if (octets === null) return;
    const key = toBinary(octets);
    const gone = name === "delete";
    this.detail.changed(key, told.revision, gone);
    const at = new Date((told.time ?? Date.now() / 1000) * 1000);
    this.last = `${gone ? "Deleted" : "Written"}: ${readable(key)}, revision ${count(told.revision)}, ${clock(at)}`;
    const here = (this.#start === null || key >= this.#start) && (this.#next === null || key < this.#next);
    if (here && !gone) {
      this.#records.set(key, recordOf(told));
      this.#flash.add(key);
      this.#trim();
    } else if (here && this.#records.has(key)) {
      const record = this.#records.get(key);
      record.gone = true;
      setTimeout(() => {
        if (this.#records.get(key) !== record) return;
        this.#records.delete(key);
        this.#later();
      }, GONE_MS);
    }
    this.#later();
  }

  /** A page stays a page: what no longer fits is the next one's. */
  #trim() {
    const limit = Number(byId("page-size").value);
    if (this.#records.size <= limit) return;
    const sorted = [...this.#records.keys()].sort(compare);
    for (const key of sorted.slice(limit)) this.#records.delete(key);
    this.#next = sorted[limit];
  }

  #later() {
    if (this.#timer) return;
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      if (!this.#records.size && this.#next !== null) {
        this.#load(this.#start, this.#back); // what follows moves up
        return;
      }
      this.#render();
      const now = performance.now();
      mark(byId("last-change"), "aria-live", now - this.#said < QUIET_MS ? "off" : "polite");
      this.#said = now;
      say(byId("last-change"), this.last ?? "");
    }, RENDER_MS);
  }

  // What is shown.

  #render() {
    const body = byId("keys");
    const sorted = [...this.#records.keys()].sort(compare);
    for (const [key, row] of this.#rows) {
      if (this.#records.has(key)) continue;
      if (row.row.contains(document.activeElement)) byId("list-title").closest("section").querySelector("#page-first").focus();
      row.row.remove();
      this.#rows.delete(key);
    }
    sorted.forEach((key, at) => {
      const row = this.#rows.get(key) ?? this.#newRow(key);
      if (body.children[at] !== row.row) body.insertBefore(row.row, body.children[at] ?? null);
      this.#showRow(row, this.#records.get(key));
      if (this.#flash.has(key)) {
        row.row.classList.remove("changed");
        void row.row.offsetWidth; // so that it begins anew
        row.row.classList.add("changed");
      }
    });
    this.#flash.clear();
    this.#select();
    this.#showPager(sorted.length);
  }

  #newRow(key) {
    const open = make("button", { type: "button", class: "key-name mono" }, readable(key));
    open.addEventListener("click", () => this.#go(this.#prefix, key));
    const value = make("span", { class: "mono value" });
    const revision = make("span", {});
    const row = make("tr", { role: "row" },
      make("th", { role: "rowheader", scope: "row" }, open),
      make("td", { role: "cell", "data-label": "Value" }, value),
      make("td", { role: "cell", "data-label": "Revision", class: "num" }, revision));
    const made = { row, open, value, revision };
    this.#rows.set(key, made);
    return made;
  }

  #showRow(row, record) {
    const [text, kind] = record.gone ? ["deleted", "binary"] : record.preview;
    say(row.value, text);
    mark(row.value, "data-kind", kind || null);
    say(row.revision, count(record.revision));
    mark(row.row, "data-gone", record.gone ? "yes" : null);
  }

  #select() {
    for (const [key, row] of this.#rows) {
      mark(row.open, "aria-current", key === this.detail.key ? "true" : null);
      mark(row.row, "data-open", key === this.detail.key ? "yes" : null);
    }
  }

  #showPager(many) {
    const empty = byId("list-empty");
    empty.hidden = many > 0 || !this.#loaded;
    if (!many) {
      say(empty, this.#start !== null ? "No keys are left on this page."
        : this.#prefix === "/" ? "There are no keys yet." : `No key begins with ${readable(this.#prefix)}`);
    }
    byId("page-first").disabled = this.#start === null;
    byId("page-back").disabled = !this.#back.length;
    byId("page-next").disabled = this.#next === null;
    say(byId("list-note"), !this.#loaded ? "" : `${plural(many, "key")}${this.#start !== null ? `, page ${this.#back.length + 1}` : this.#next !== null ? ", first page" : ""}`);
  }

  /** Arrow keys go from key to key. */
  #step(event) {
    const way = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const buttons = [...byId("keys").querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement);
    if (!way || at < 0) return;
    event.preventDefault();
    buttons[Math.max(0, Math.min(buttons.length - 1, at + way))].focus();
  }
}

const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
