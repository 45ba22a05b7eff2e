// Prometheus' text format, and what two readings of it tell.
// https://prometheus.io/docs/instrumenting/exposition_formats/

const SAMPLE = /^([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?\s*$/;
const LABEL = /([A-Za-z_][A-Za-z0-9_]*)\s*=\s*"((?:\\.|[^"\\])*)"/g;

/** name -> [{labels, value}, ...]; lines that are none are passed over. */
export function parse(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    if (line === "" || line[0] === "#") continue;
    const match = SAMPLE.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, name, raw] of (match[2] ?? "").matchAll(LABEL)) {
      labels[name] = raw.replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));
    }
    const value = Number(match[3].replace(/^\+?Inf$/, "Infinity").replace(/^-Inf$/, "-Infinity"));
    const same = found.get(match[1]);
    if (same) same.push({ labels, value });
    else found.set(match[1], [{ labels, value }]);
  }
  return found;
}

/** The sum of those whose labels pass; null where there are none of that name. */
export function total(reading, name, passes = () => true) {
  const samples = reading?.get(name);
  if (!samples) return null;
  let sum = 0;
  for (const { labels, value } of samples) if (passes(labels)) sum += value;
  return sum;
}

/** What a counter gained a second; null where it is not known, or began anew. */
export function perSecond(before, now, seconds) {
  if (before === null || now === null || !(seconds > 0) || now < before) return null;
  return (now - before) / seconds;
}

/** upper bound -> observations at most that large, over all label sets. */
export function buckets(reading, name) {
  const samples = reading?.get(name + "_bucket");
  if (!samples) return null;
  const found = new Map();
  for (const { labels, value } of samples) {
    const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
    found.set(bound, (found.get(bound) ?? 0) + value);
  }
  return found;
}

/**
 * Quantiles of what was observed between two readings of a histogram, each linear
 * within its bucket as Prometheus' histogram_quantile() has it; null where nothing was.
 */
export function quantiles(before, now, wanted) {
  if (!before || !now) return wanted.map(() => null);
  const bounds = [...now.keys()].sort((a, b) => a - b);
  const gained = bounds.map((bound) => now.get(bound) - (before.get(bound) ?? 0));
  const all = gained.at(-1) ?? 0;
  if (!(all > 0) || gained.some((value) => value < 0)) return wanted.map(() => null);
  return wanted.map((quantile) => {
    const rank = quantile * all;
    const at = gained.findIndex((value) => value >= rank);
    const low = at > 0 ? bounds[at - 1] : 0;
    if (bounds[at] === Infinity) return low || null;
    const below = at > 0 ? gained[at - 1] : 0;
    const inside = gained[at] - below;
    return inside > 0 ? low + (bounds[at] - low) * ((rank - below) / inside) : bounds[at];
  });
}
