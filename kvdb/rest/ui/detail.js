// One key: read, write and delete it, each write on condition that the key is still
// at the revision that was shown.

import { ask, askBytes, newToken, onCredentials, Problem } from "./api.js";
import { capital, confirm } from "./dialogs.js";
import { announce, byId, hideProblem, make, mark, say, showProblem } from "./dom.js";
import { fromBase64, fromText, hexdump, isPlain, percent, readable, toBase64, toBinary, toText } from "./octets.js";
import { bytes, count } from "./words.js";

const HEX_BYTES = 4096; // of a value, shown in hexadecimal
const FOLLOW_MS = 500; // a key that changes more often is not read each time

const pathOf = (key) => "_/kv/" + percent(key.slice(1));
const revisionOf = (etag) => {
  const match = /^(?:W\/)?"(\d+)"$/.exec(etag ?? "");
  return match ? Number(match[1]) : null;
};
const same = (a, b) => a.length === b.length && a.every((octet, at) => octet === b[at]);

export class Detail {
  key = null; // as binary; null for none, or for one that is being made
  #owner;
  #isNew = false;
  #octets = new Uint8Array(); // as the server has it
  #draft = new Uint8Array(); // as it would be saved, but for what the box holds
  #revision = null; // null where the key was not there
  #mode = "text";
  #busy = false;
  #reading = null;
  #later = null; // a change that was told while a write was under way
  #asked = -Infinity;
  #timer = 0; // until a change is followed
  #unsure = false; // whether a write may or may not have been carried out
  #token = ["", ""]; // what it was for, and itself
  #opening = 0; // grows with each key that is opened: late answers are of another

  /**
   * `owner.record` gives what a list has of a key; `owner.go` opens one, and
   * `owner.opened` hears that one was.
   */
  constructor(owner) {
    this.#owner = owner;
    const form = byId("detail-form");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#save();
    });
    form.addEventListener("change", (event) => {
      if (event.target.name === "mode") this.#switch(event.target.value);
    });
    byId("detail-value").addEventListener("input", () => this.#buttons());
    byId("detail-key").addEventListener("input", () => this.#buttons());
    byId("detail-delete").addEventListener("click", () => this.#delete());
    byId("detail-reload").addEventListener("click", () => this.#reload());
    byId("detail-close").addEventListener("click", async () => {
      if (await this.#mayLeave()) {
        this.#forget();
        this.#owner.go(null);
      }
    });
    addEventListener("beforeunload", (event) => {
      if (this.#dirty()) event.preventDefault();
    });
    onCredentials(() => {
      if (this.key !== null && !this.#dirty()) this.#read();
    });
  }

  /** Show a key, or none; asks before changes are given up. */
  async open(key) {
    if (key === this.key && (key !== null || !this.#isNew)) return;
    if (key === null && this.#isNew) return; // a new one is being made
    const kept = this.key;
    if (!(await this.#mayLeave())) {
      this.#owner.go(kept);
      return;
    }
    this.#forget();
    this.key = key;
    this.#owner.opened();
    if (key === null) {
      this.#showNone();
      return;
    }
    this.#show(readable(key));
    await this.#read();
    byId("detail").focus({ preventScroll: matchMedia("(min-width: 900px)").matches });
  }

  /** Make a new key, whose name begins as the prefix does. */
  async begin(prefix) {
    if (!(await this.#mayLeave())) return;
    this.#forget();
    this.#owner.go(null);
    this.#isNew = true;
    this.#show("New key");
    const text = readable(prefix);
    byId("detail-key").value = toBinary(fromText(text)) === prefix ? text : "/"; // or it is another
    this.#put(new Uint8Array(), null);
    byId("detail-key").focus();
    byId("detail-key").setSelectionRange(-1, -1);
  }

  /** A change was told: of this key, perhaps. */
  changed(key, revision, gone) {
    if (key !== this.key) return;
    if (this.#busy || this.#unsure || this.#reading) this.#later = [revision, gone];
    else this.#tell(revision, gone);
  }

  /** Changes may have been missed. */
  missed() {
    if (this.key === null) return;
    const record = this.#owner.record(this.key);
    if (record) this.changed(this.key, record.revision, false);
    else if (!this.#busy && !this.#unsure && !this.#reading && !this.#dirty()) this.#read();
  }

  #tell(revision, gone) {
    if (revision <= (this.#revision ?? 0)) return;
    if (!gone && !this.#dirty()) {
      const wait = this.#asked + FOLLOW_MS - performance.now();
      clearTimeout(this.#timer);
      if (wait <= 0) this.#read();
      else this.#timer = setTimeout(() => this.changed(this.key, revision, gone), wait);
      return;
    }
    showProblem(byId("detail-problem"),
      gone ? "Somebody has deleted this key." : `Somebody has changed this key, at revision ${count(revision)}.`,
      this.#dirty() ? "What you have written is still here." : "",
      [["Reload", () => this.#read()]]);
  }

  #catchUp() {
    const told = this.#later;
    this.#later = null;
    if (told) this.#tell(...told);
  }

  // What is shown.

  #forget() {
    this.#opening += 1;
    this.#busy = false;
    this.#reading?.abort();
    this.#reading = null;
    clearTimeout(this.#timer);
    this.#asked = -Infinity;
    this.key = null;
    this.#isNew = false;
    this.#octets = this.#draft = new Uint8Array();
    this.#revision = null;
    this.#later = null;
    this.#unsure = false;
    byId("detail-value").value = "";
    byId("detail-key").value = "";
    hideProblem(byId("detail-problem"));
  }

  /** A button that is disabled or gone has lost the focus: it stays with the key. */
  #keepFocus() {
    const focused = document.activeElement;
    if (focused === document.body || !focused?.checkVisibility()) byId("detail").focus({ preventScroll: true });
  }

  #showNone() {
    say(byId("detail-title"), "No key is open");
    byId("detail-title").classList.remove("mono");
    byId("detail-hint").hidden = false;
    byId("detail-form").hidden = true;
    mark(byId("detail"), "data-open", null);
    this.#keepFocus();
  }

  #show(title) {
    say(byId("detail-title"), title);
    byId("detail-title").classList.toggle("mono", !this.#isNew);
    byId("detail-hint").hidden = true;
    byId("detail-form").hidden = false;
    byId("detail-key-row").hidden = !this.#isNew;
    mark(byId("detail"), "data-open", "yes");
  }

  async #read() {
    this.#reading?.abort();
    const reading = this.#reading = new AbortController();
    this.#unsure = false;
    clearTimeout(this.#timer);
    this.#asked = performance.now();
    hideProblem(byId("detail-problem"));
    try {
      const { octets, etag } = await askBytes(pathOf(this.key), { signal: reading.signal });
      if (reading.signal.aborted) return;
      this.#put(octets, revisionOf(etag));
    } catch (error) {
      if (reading.signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      if (error.status === 404 && !this.#unaddressable()) {
        this.#put(new Uint8Array(), null);
        showProblem(byId("detail-problem"), "There is no such key.", "Saving makes it.");
      } else {
        if (error.refused && !this.#dirty()) this.#put(new Uint8Array(), null);
        this.#fail(error, [["Try again", () => this.#read()]]);
      }
    } finally {
      if (this.#reading === reading) this.#reading = null;
    }
    this.#catchUp();
  }

  /** A browser takes "." and ".." out of every address, however they are written. */
  #unaddressable(key = this.key) {
    return key === "/." || key === "/..";
  }

  #put(octets, revision) {
    this.#octets = this.#draft = octets;
    this.#revision = revision;
    const text = toText(octets);
    this.#mode = text !== null && isPlain(text) ? "text" : "hex";
    this.#showFacts();
    this.#showValue();
  }

  #showFacts() {
    const record = this.key === null ? null : this.#owner.record(this.key);
    const known = record !== null && record.revision === this.#revision;
    const told = [["Revision", this.#revision === null ? "none yet" : count(this.#revision)], ["Size", bytes(this.#octets.length)]];
    if (known && record.created !== null) told.push(["Made at", count(record.created)]);
    if (known && record.version !== null) told.push(["Version", count(record.version)]);
    byId("detail-facts").hidden = this.#isNew;
    byId("detail-facts").replaceChildren(...told.map(([name, value]) =>
      make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  }

  #showValue() {
    const box = byId("detail-value");
    const text = toText(this.#draft);
    const plain = text !== null && isPlain(text);
    const modes = byId("detail-form").elements.mode;
    for (const radio of modes) {
      radio.checked = radio.value === this.#mode;
      if (radio.value === "text") radio.disabled = !plain;
    }
    const hex = this.#mode === "hex";
    box.parentElement.hidden = hex;
    byId("detail-hex").hidden = !hex;
    if (hex) say(byId("detail-hex"), hexdump(this.#draft, HEX_BYTES) || "empty");
    else box.value = this.#mode === "text" ? text : toBase64(this.#draft);
    say(byId("detail-value-label"), this.#mode === "base64" ? "Value, in Base64" : "Value");
    say(byId("detail-note"), hex && this.#draft.length > HEX_BYTES ? `The first ${bytes(HEX_BYTES)} of ${bytes(this.#draft.length)}.`
      : !plain ? (text === null ? "This value is no UTF-8 text." : "This value holds control characters.") + (hex ? " Base64 can be edited." : "")
      : "");
    this.#buttons();
  }

  #switch(mode) {
    const octets = this.#current();
    if (octets === null) {
      showProblem(byId("detail-problem"), "This is not Base64.");
      for (const radio of byId("detail-form").elements.mode) radio.checked = radio.value === this.#mode;
      return;
    }
    hideProblem(byId("detail-problem"));
    this.#draft = octets;
    const text = toText(octets);
    this.#mode = mode === "text" && (text === null || !isPlain(text)) ? "hex" : mode;
    this.#showValue();
  }

  /** What would be saved; null where the box holds no Base64. */
  #current() {
    if (this.#mode === "hex") return this.#draft;
    const written = byId("detail-value").value;
    return this.#mode === "text" ? fromText(written) : fromBase64(written);
  }

  #dirty() {
    if (this.key === null && !this.#isNew) return false;
    const octets = this.#current();
    return octets === null || !same(octets, this.#octets);
  }

  #buttons() {
    const dirty = this.#dirty();
    const isThere = this.#revision !== null;
    byId("detail-save").disabled = this.#busy || (isThere && !dirty);
    say(byId("detail-save"), isThere ? "Save" : "Create");
    byId("detail-delete").hidden = byId("detail-reload").hidden = this.#isNew;
    byId("detail-delete").disabled = this.#busy || !isThere;
    byId("detail-reload").disabled = this.#busy;
    mark(byId("detail"), "data-dirty", dirty ? "yes" : null);
  }

  async #mayLeave() {
    if (!this.#dirty()) return true;
    return Boolean(await confirm({
      title: "Give up your changes?",
      words: [`What you have written${this.key === null ? "" : ` to ${readable(this.key)}`} is not saved.`],
      yes: "Give them up",
      danger: true,
      act: () => true,
    }));
  }

  async #reload() {
    if (await this.#mayLeave()) this.#read();
  }

  // Writing.

  #fail(problem, actions = []) {
    showProblem(byId("detail-problem"), capital(problem.message) + ".", problem.hint, actions);
  }

  /** A write that nobody knows the end of is repeated with the same token. */
  #tokenFor(what) {
    if (this.#token[0] !== what) this.#token = [what, newToken()];
    return this.#token[1];
  }

  /** `seen` is the revision that somebody decided by; null where there was no key. */
  async #write(key, method, body, seen, done) {
    const opening = this.#opening;
    this.#busy = true;
    this.#unsure = false;
    this.#buttons();
    hideProblem(byId("detail-problem"));
    const condition = seen === null ? { "If-None-Match": "*" } : { "If-Match": `"${seen}"` };
    const what = [method, key, seen, body ? toBase64(body) : ""].join(" ");
    try {
      const answer = await ask(pathOf(key), { method, body, expect: 204, headers: { ...condition, "Idempotency-Key": this.#tokenFor(what) } });
      if (opening !== this.#opening) {
        announce(`${method === "DELETE" ? "Deleted" : "Saved"} ${readable(key)}.`);
        return;
      }
      this.#token = ["", ""];
      this.#busy = false;
      done(revisionOf(answer.headers.get("etag")));
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (opening !== this.#opening) {
        announce(`${readable(key)} was ${error.unknown ? "perhaps not" : "not"} ${method === "DELETE" ? "deleted" : "saved"}: ${error.message}.`);
        return;
      }
      this.#busy = false;
      if (!error.unknown) this.#token = ["", ""];
      if (error.status === 412) this.#conflict(method, key, seen, revisionOf(error.etag));
      else if (error.unknown) {
        this.#unsure = true;
        showProblem(byId("detail-problem"), capital(error.message) + ".",
          "It may yet have been carried out. Trying again is safe: it is carried out once.",
          [["Try again", () => this.#write(key, method, body, seen, done)]]);
      } else this.#fail(error);
    }
    this.#buttons();
    this.#keepFocus();
    if (!this.#unsure) this.#catchUp();
  }

  #conflict(method, key, seen, isNow) {
    this.#later = null; // it is told here
    if (this.#isNew) {
      showProblem(byId("detail-problem"), "There is such a key already.", "Nothing was written.", [["Open it", async () => {
        if (!(await this.#mayLeave())) return;
        this.#forget();
        this.#owner.go(key);
      }]]);
      return;
    }
    const wrote = method === "PUT";
    const actions = [["Reload theirs", () => this.#read()]];
    if (wrote) {
      actions.push(["Keep mine, and save over theirs", () => {
        this.#revision = isNow;
        this.#showFacts();
        this.#save();
      }]);
    }
    showProblem(byId("detail-problem"),
      isNow === null ? "Somebody has deleted this key."
        : `Somebody has changed this key: it is at revision ${count(isNow)}, ${seen === null ? "and was absent before" : `yours was of ${count(seen)}`}.`,
      wrote ? "Nothing was written, and your text is still here." : "It was not deleted.", actions);
  }

  #save() {
    if (this.#busy) return;
    const octets = this.#current();
    const key = this.#isNew ? toBinary(fromText(byId("detail-key").value)) : this.key;
    if (octets === null) showProblem(byId("detail-problem"), "This is not Base64.", "Nothing was written.");
    else if (!key.startsWith("/")) showProblem(byId("detail-problem"), "A key begins with a slash.", "Nothing was written.");
    else if (this.#unaddressable(key)) showProblem(byId("detail-problem"), "A browser cannot address this key.", "curl --path-as-is can.");
    else {
      this.#write(key, "PUT", octets, this.#revision, (revision) => {
        announce(`Saved ${readable(key)}, revision ${count(revision)}.`);
        const written = this.#current(); // more, perhaps, since it was sent
        this.#octets = this.#draft = octets;
        this.#revision = revision;
        if (this.#isNew) {
          this.#isNew = false;
          this.key = key;
          this.#show(readable(key));
          this.#owner.go(key);
        }
        this.#showFacts();
        if (written !== null && same(written, octets)) this.#showValue();
      });
    }
  }

  async #delete() {
    const key = this.key;
    const revision = this.#revision;
    const yes = await confirm({
      title: "Delete this key?",
      words: [readable(key), `It is deleted if it is still at revision ${count(revision)}. Its history is kept for a while: GET with ?revision=${revision} reads it.`],
      yes: "Delete",
      danger: true,
      act: () => true,
    });
    if (!yes || key !== this.key) return;
    this.#write(key, "DELETE", undefined, revision, () => {
      announce(`Deleted ${readable(key)}.`);
      this.#forget();
      this.#showNone();
      this.#owner.go(null);
    });
  }
}
