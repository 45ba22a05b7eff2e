// The table of members, and what can be done to the membership.

import { ask, askJSON, isId, newToken } from "./api.js";
import { confirm } from "./dialogs.js";
import { announce, byId, make, mark, say } from "./dom.js";
import { stateWords } from "./picture.js";
import { bytes, count, plural } from "./words.js";

const MANY_ENTRIES = 100; // fewer are on their way, as ever

const cell = (label, ...children) =>
  make("td", { role: "cell", "data-label": label }, ...children);

class Row {
  constructor(id, table) {
    this.name = make("strong", { class: "id" }, `${id}`);
    this.own = make("span", { class: "tag" }, "this");
    this.url = make("span", { class: "mono muted url" });
    this.page = make("a", { target: "_blank", rel: "noopener noreferrer" }, "open its page");
    this.role = make("span", { class: "badge" });
    this.state = make("span", { class: "state" });
    this.size = make("span", { class: "muted size" });
    this.term = make("span", {});
    this.matched = make("span", { class: "matched" });
    this.applied = make("span", { class: "applied" });
    this.bar = make("div", { class: "bar", role: "meter", "aria-valuemin": 0, "aria-label": `Log of member ${id}` }, this.matched, this.applied);
    this.log = make("span", { class: "muted small" });
    this.lag = make("span", {});
    this.lead = make("button", { type: "button", class: "quiet small" }, "Make leader");
    this.remove = make("button", { type: "button", class: "quiet small danger" }, "Remove");
    this.lead.setAttribute("aria-label", `Make member ${id} leader`);
    this.remove.setAttribute("aria-label", `Remove member ${id}`);
    this.lead.addEventListener("click", () => table.handOver(id));
    this.remove.addEventListener("click", () => table.remove(id));
    this.row = make("tr", { role: "row", "data-id": id },
      make("th", { role: "rowheader", scope: "row" }, make("div", { class: "who" }, this.name, this.own, this.page, this.size), this.url),
      cell("Role", this.role, this.state),
      make("td", { role: "cell", "data-label": "Term", class: "num" }, this.term),
      cell("Log", this.bar, this.log),
      make("td", { role: "cell", "data-label": "Lag", class: "num" }, this.lag),
      make("td", { role: "cell", class: "row-actions" }, this.lead, this.remove));
  }

  show(member, seen) {
    mark(this.row, "data-state", member.state);
    mark(this.row, "data-role", member.role);
    this.own.hidden = !member.own;
    say(this.url, member.url);
    this.page.hidden = member.own || !member.page;
    if (member.page) mark(this.page, "href", new URL("/_/ui/", member.page).href);
    mark(this.page, "aria-label", `Open the page of member ${member.id}, in a new tab`);
    say(this.role, member.role);
    say(this.state, member.own ? "" : stateWords(member));
    say(this.size, member.storeBytes === null ? "" : bytes(member.storeBytes));
    say(this.term, count(member.term));
    const part = (value) => (value === null || !seen.last ? 0 : Math.min(100, (100 * value) / seen.last));
    const held = member.match ?? member.applied;
    this.matched.style.width = part(held) + "%";
    this.applied.style.width = part(member.applied) + "%";
    this.bar.hidden = held === null;
    mark(this.bar, "aria-valuemax", seen.last);
    mark(this.bar, "aria-valuenow", held ?? 0);
    const told = [];
    if (member.match !== null && member.match === member.applied) told.push(`${count(member.match)}, all applied`);
    else {
      if (member.match !== null) told.push(`holds ${count(member.match)}`);
      if (member.applied !== null) told.push(`applied ${count(member.applied)}`);
    }
    say(this.log, told.length ? told.join(" · ") : seen.leader === null ? "not known here" : "the leader knows");
    mark(this.bar, "aria-valuetext", `${told.join(", ")}, of ${count(seen.last)}`);
    say(this.lag, count(member.lag));
    mark(this.lag, "data-behind", member.lag > MANY_ENTRIES ? "yes" : null);
    this.lead.hidden = member.leads || !member.voter;
    this.lead.disabled = seen.leader === null || member.state === "down";
    this.remove.disabled = seen.leader === null || seen.members.length === 1;
  }
}

export class Members {
  #rows = new Map();
  isOut = false; // whether the member that serves this page was removed here
  #seen = null;
  #highest = 0; // id that this page has seen: those of removed members are refused
  #refresh;

  /** `refresh` asks for a new status at once. */
  constructor(refresh) {
    this.#refresh = refresh;
    byId("add-member").addEventListener("click", () => this.add());
    byId("hand-over").addEventListener("click", () => this.handOver(null));
  }

  show(seen) {
    this.#seen = seen;
    for (const { id } of seen.members) if (id > this.#highest) this.#highest = id;
    const body = byId("members");
    const ids = new Set(seen.members.map((member) => member.id));
    for (const [id, row] of this.#rows) {
      if (!ids.has(id)) {
        if (row.row.contains(document.activeElement)) byId("add-member").focus();
        row.row.remove();
        this.#rows.delete(id);
      }
    }
    seen.members.forEach((member, at) => {
      let row = this.#rows.get(member.id);
      if (!row) this.#rows.set(member.id, row = new Row(member.id, this));
      if (body.children[at] !== row.row) body.insertBefore(row.row, body.children[at] ?? null);
      row.show(member, seen);
    });
    byId("hand-over").disabled = seen.leader === null || seen.voters < 2;
    byId("add-member").disabled = seen.leader === null;
  }

  async handOver(id) {
    const seen = this.#seen;
    const done = await confirm({
      title: id === null ? "Hand over leadership?" : `Make member ${id} leader?`,
      words: [
        seen.leader === null ? "Nobody leads now."
          : `Member ${seen.leader} stops taking writes, waits until ${id === null ? "the voter that is furthest" : `member ${id}`} has its whole log, and has it elected at once.`,
        "Writes wait for some milliseconds meanwhile, and none is lost. If it does not come about, the old leader goes on.",
      ],
      yes: "Hand over",
      act: () => askJSON("_/leader", (told) => isId(told.leader), { method: "POST", body: id === null ? "" : `{"id": ${id}}` }),
    });
    if (done) announce(`Member ${done.leader} leads.`);
    this.#refresh();
  }

  async remove(id) {
    const seen = this.#seen;
    const member = seen.members.find((one) => one.id === id);
    if (!member) return;
    const voters = seen.voters - (member.voter ? 1 : 0);
    const reached = seen.reached - (member.voter && ["self", "up"].includes(member.state) ? 1 : 0);
    const left = Math.max(0, reached - Math.floor(voters / 2) - 1);
    const words = [
      `Member ${id} (${member.url}) is taken out of the cluster. Its process ends by itself, or when it comes back.`,
      `${plural(voters, "voter")} will be left, ${left === 0 ? "and no further one may fail" : `of which ${left === 1 ? "one" : left} may fail`}.`,
      `The id ${id} is never given again; to have the machine back, add it under a new one with an empty data directory.`,
    ];
    if (member.leads) words.splice(1, 0, "It leads now: another one will be elected.");
    if (member.own) words.push("It is the member that serves this page, which will stop working.");
    const token = newToken();
    const done = await confirm({
      title: `Remove member ${id}?`,
      words,
      yes: `Remove member ${id}`,
      danger: true,
      act: async () => {
        await ask(`_/members/${id}`, { method: "DELETE", expect: 204, headers: { "Idempotency-Key": token } });
      },
    });
    if (done) {
      this.isOut = member.own;
      announce(`Member ${id} is removed.`);
    }
    this.#refresh();
  }

  async add() {
    const seen = this.#seen;
    const next = this.#highest + (typeof this.#highest === "bigint" ? 1n : 1);
    const id = make("input", { id: "add-id", inputmode: "numeric", pattern: "[0-9]+", required: true, value: next, autocomplete: "off" });
    const peer = make("input", { id: "add-url", class: "mono", required: true, placeholder: "http://10.0.0.4:12379", autocomplete: "off", autocapitalize: "off", spellcheck: "false" });
    let [asked, token] = ["", ""];
    const done = await confirm({
      title: "Add a member",
      fields: [
        make("div", { class: "field" }, make("label", { for: "add-id" }, "Id"), id),
        make("div", { class: "field" }, make("label", { for: "add-url" }, "Peer URL, where the other members will find it"), peer),
      ],
      words: [
        "It comes as a learner, which costs the others nothing, and is made a voter once it has caught up.",
        "It need not run yet. Ids are never given twice, so one of a removed member is refused.",
      ],
      yes: () => (/^[0-9]+$/.test(id.value) ? `Add member ${id.value}` : "Add"),
      act: async () => {
        const body = `{"id": ${id.value.replace(/^0+(?=\d)/, "")}, "url": ${JSON.stringify(peer.value.trim())}}`;
        if (body !== asked) [asked, token] = [body, newToken()]; // another request
        return askJSON("_/members", (told) => isId(told.id), { method: "POST", body, headers: { "Idempotency-Key": token } });
      },
    });
    this.#refresh();
    if (!done) return;
    announce(`Member ${done.id} is added, as a learner.`);
    const all = [...seen.members.filter((member) => member.id !== done.id), { id: done.id, url: done.url }];
    await confirm({
      title: `Start member ${done.id}`,
      words: ["It is a member now, and waits to be started, on its own machine and with an empty data directory:"],
      fields: [make("pre", { class: "mono command", tabindex: 0 },
        `twistd -n --pidfile= kvdb --id ${done.id} \\\n  --cluster ${all.map((one) => `${one.id}=${one.url}`).join(",")} \\\n  --port 12380 --join`)],
      yes: "Done",
      isTold: true,
      act: () => true,
    });
  }
}
