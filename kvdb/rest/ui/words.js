// Numbers, times and sizes, as people read them.

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const count = (value) =>
  value === null || value === undefined ? "–" : plain.format(value);

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  let scaled = value;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (scaled < 1024) return `${unit === "B" ? scaled : scaled.toFixed(scaled < 10 ? 1 : 0)} ${unit}`;
    scaled /= 1024;
  }
  return `${scaled.toFixed(1)} TiB`;
}

/** A rate in events a second. */
export function rate(value) {
  if (value === null || value === undefined) return "–";
  if (value !== 0 && value < 10) return value.toFixed(1);
  return plain.format(value);
}

/** A duration given in seconds. */
export function duration(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
  if (value < 0.01) return `${(value * 1e3).toFixed(1)} ms`;
  if (value < 1) return `${Math.round(value * 1e3)} ms`;
  if (value < 90) return `${value.toFixed(value < 10 ? 1 : 0)} s`;
  return `${Math.round(value / 60)} min`;
}

const two = (value) => String(value).padStart(2, "0");

export const clock = (date) =>
  `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;

export const plural = (many, one, more = one + "s") => `${count(many)} ${many === 1 ? one : more}`;

/** "1", "1 and 2", "1, 2 and 3". */
export function list(items) {
  const all = items.map(String);
  const last = all.pop();
  return all.length ? `${all.join(", ")} and ${last}` : last ?? "";
}
