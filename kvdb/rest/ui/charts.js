// Rates and latencies of the last minutes, drawn by uPlot.

import uPlot from "./uPlot.esm.js";
import { byId, make, mark, say } from "./dom.js";
import { buckets, perSecond, quantiles, total } from "./metrics.js";
import { onTheme } from "./theme.js";
import { clock, duration, rate } from "./words.js";

const SHOWN_SECONDS = 300;
const FIRST_SECONDS = 60; // the least that is shown
const MAX_POINTS = 200; // kept, of a reading every two seconds
const LATENCY_SECONDS = 10; // a quantile is of what was observed in so many
const GAP_SECONDS = 15; // readings further apart are not connected
const HEIGHT = 150;

const COMMIT = "kvdb_commit_duration_seconds";
const SYNC = "kvdb_disk_wal_fsync_duration_seconds";
const REQUESTS = "kvdb_http_requests_total";
const CLASSES = ["2", "3", "4", "5"];

const READ_ROUTES = ["key", "list"];
const readsKey = (labels) =>
  READ_ROUTES.includes(labels.route) && (labels.method === "GET" || labels.method === "HEAD");

/** id, title, what is said under it, how values read, and the series. */
const CHARTS = [
  ["keys", "Reads and writes", "a second", rate, [["writes", "Writes, whole cluster", 1], ["reads", "Reads, this member", 2]]],
  ["commit", "Commit latency", "from arrival until carried out, this member", duration, [["commit50", "Half within", 1], ["commit99", "99 % within", 3]]],
  ["sync", "Sync of the log", "on this member's disk", duration, [["sync50", "Half within", 1], ["sync99", "99 % within", 3]]],
  ["http", "HTTP answers", "a second, this member", rate, CLASSES.map((digit, at) => ["http" + digit, digit + "xx", [2, 1, 3, 4][at]])],
];

/** From two samples, what is drawn; null for what is not known. */
export function derive(before, now, older) {
  const seconds = now.time - before.time;
  const made = { writes: perSecond(before.revision, now.revision, seconds) };
  const both = (name, passes) => perSecond(total(before.reading, name, passes), total(now.reading, name, passes), seconds);
  made.reads = both(REQUESTS, readsKey);
  for (const digit of CLASSES) {
    made["http" + digit] = both(REQUESTS, (labels) => String(labels.status ?? "").startsWith(digit));
  }
  for (const [name, metric] of [["commit", COMMIT], ["sync", SYNC]]) {
    [made[name + "50"], made[name + "99"]] =
      quantiles(buckets(older.reading, metric), buckets(now.reading, metric), [0.5, 0.99]);
  }
  return made;
}

/** From when to when is drawn. */
export function shownSpan(times) {
  const last = times.at(-1);
  return [Math.min(last - FIRST_SECONDS, Math.max(times[0], last - SHOWN_SECONDS)), last];
}

class Chart {
  #plot = null;
  #names;
  #values;
  #items;
  #data;

  constructor([id, title, under, format, series], sync) {
    this.format = format;
    this.series = series;
    this.#names = series.map(([name]) => name);
    this.#values = series.map(() => make("output", { "aria-live": "off" }, "–"));
    this.swatches = series.map(([, , colour]) => make("span", { class: `swatch hue-${colour}`, "aria-hidden": "true" }));
    this.#items = series.map(([, label], at) =>
      make("li", { hidden: true }, this.swatches[at], make("span", { class: "muted" }, label), this.#values[at]));
    this.box = make("div", { class: "plot", "aria-hidden": "true" });
    this.figure = make("figure", { class: "card chart", id: `chart-${id}`, hidden: true },
      make("figcaption", {},
        make("h3", {}, title), make("span", { class: "muted small" }, under)),
      make("ul", { class: "legend", "aria-label": `${title}, now` }, ...this.#items),
      this.box);
    this.sync = sync;
  }

  #draw() {
    const colours = this.swatches.map((swatch) => getComputedStyle(swatch).color);
    const box = getComputedStyle(this.box);
    const axis = {
      stroke: box.color, font: "11px system-ui, sans-serif",
      grid: { stroke: box.borderTopColor, width: 1 }, ticks: { show: false },
    };
    this.#plot?.destroy();
    this.#plot = new uPlot({
      width: this.box.clientWidth || 300,
      height: HEIGHT,
      legend: { show: false },
      padding: [8, 24, 0, 0],
      cursor: { sync: { key: this.sync.key }, drag: { x: false, y: false }, y: false, points: { size: 6 } },
      scales: {
        x: { time: true, range: () => shownSpan(this.#data[0]) },
        y: { range: (_, __, most) => [0, most > 0 ? most * 1.15 : 1] },
      },
      axes: [
        { ...axis, size: 22, gap: 4, space: 90, incrs: [10, 15, 30, 60, 120, 300], values: (_, ticks) => ticks.map((at) => clock(new Date(at * 1000))) },
        { ...axis, size: 54, gap: 6, space: 34, values: (_, ticks) => ticks.map((at) => (at === 0 ? "0" : this.format(at))) },
      ],
      series: [{}, ...this.series.map(([, label], at) => ({
        label, stroke: colours[at], width: 1.6, points: { show: false },
        fill: at === 0 ? colours[at].replace(/^rgb\((.*)\)$/, "rgba($1, 0.10)") : undefined,
      }))],
      hooks: { setCursor: [(plot) => this.#read(plot.cursor.idx)] },
    }, this.#data, this.box);
  }

  /** Say the values under the cursor, or else the newest. */
  #read(at) {
    const index = at ?? this.#data[0].length - 1;
    this.#names.forEach((_, series) => {
      say(this.#values[series], this.format(this.#data[series + 1][index] ?? null));
    });
  }

  show(times, points) {
    this.#data = [times, ...this.#names.map((name) => points.map((point) => point[name] ?? null))];
    this.#data.slice(1).forEach((values, at) => {
      if (values.some((value) => value !== null)) this.#items[at].hidden = false;
    });
    if (this.#items.every((item) => item.hidden)) return; // nothing was ever known
    this.figure.hidden = false;
    if (this.#plot) this.#plot.setData(this.#data);
    else if (this.box.clientWidth) this.#draw();
    this.#read(this.#plot?.cursor.idx);
  }

  fit() {
    if (this.#plot && this.box.clientWidth) this.#plot.setSize({ width: this.box.clientWidth, height: HEIGHT });
    else if (this.#data && this.box.clientWidth) this.#draw();
  }

  colours() {
    if (this.#plot) this.#draw();
  }
}

export class Charts {
  #charts;
  #samples = []; // {time, revision, reading}, the last LATENCY_SECONDS and one more
  #times = [];
  #points = [];

  constructor() {
    const sync = uPlot.sync("kvdb");
    this.#charts = CHARTS.map((chart) => new Chart(chart, sync));
    byId("charts").append(...this.#charts.map((chart) => chart.figure));
    const resized = new ResizeObserver(() => this.#charts.forEach((chart) => chart.fit()));
    for (const chart of this.#charts) resized.observe(chart.box);
    onTheme(() => this.#charts.forEach((chart) => chart.colours()));
  }

  /** How many samples and points there are: both have a bound. */
  get held() {
    return [this.#samples.length, this.#points.length];
  }

  /** `reading` is of /metrics, or null where there is none. */
  add(time, revision, reading) {
    const now = { time, revision, reading };
    const before = this.#samples.at(-1);
    this.#samples.push(now);
    if (!before) return;
    if (time <= before.time) { // the clock was put back: what is drawn is of another time
      this.#samples = [now];
      this.#times.length = this.#points.length = 0;
      return;
    }
    if (time - before.time > GAP_SECONDS) {
      this.#put(before.time + 1, {}); // a gap in the lines
      this.#samples = [now];
      return;
    }
    while (this.#samples.length > 2 && time - this.#samples[1].time >= LATENCY_SECONDS) this.#samples.shift();
    this.#put(time, derive(before, now, this.#samples[0]));
    for (const chart of this.#charts) chart.show(this.#times, this.#points);
    mark(byId("charts"), "data-many", this.#charts.filter((chart) => !chart.figure.hidden).length);
  }

  #put(time, point) {
    this.#times.push(time);
    this.#points.push(point);
    if (this.#times.length > MAX_POINTS) {
      this.#times.shift();
      this.#points.shift();
    }
  }
}
