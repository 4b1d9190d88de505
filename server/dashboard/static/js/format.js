// Numbers, sizes and times as people read them. Pure; times are unix seconds.

const grouped = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** A count with its thousands set apart: 87,402. */
export function count(value) {
  return grouped.format(value);
}

/** A rate: exact where small, rounded where large. */
export function rate(value) {
  return value < 10 ? String(Math.round(value * 10) / 10) : count(Math.round(value));
}

/** A price with the decimals that matter at its size. */
export function price(value) {
  const size = Math.abs(value);
  const decimals = size >= 1000 ? 2 : size >= 10 ? 3 : size >= 1 ? 4 : 6;
  return value.toLocaleString("en-US", {
    minimumFractionDigits: Math.min(decimals, 2),
    maximumFractionDigits: decimals,
  });
}

/** A share of one, as percent. */
export function percent(share, decimals = 0) {
  return `${(share * 100).toFixed(decimals)}%`;
}

/** A change as signed percent: +0.21%. */
export function change(share) {
  const text = (share * 100).toFixed(2);
  if (Number(text) === 0) return "0.00%";
  return share > 0 ? `+${text}%` : `−${text.slice(1)}%`;
}

/** Bytes in binary units. */
export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let size = value;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit === 0 || size >= 100 ? Math.round(size) : size.toFixed(1)} ${units[unit]}`;
}

/** A duration: 0.4 s, 12 s, 5 min, 3 h, 2 days. */
export function duration(seconds) {
  if (seconds < 1) return `${Math.max(0, seconds).toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** Milliseconds as a search or a model needs them. */
export function milliseconds(value) {
  if (value < 10) return `${value.toFixed(1)} ms`;
  return value < 2000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`;
}

const pad = (value, width = 2) => String(value).padStart(width, "0");

/** Time of day in this browser's zone; with milliseconds unless `short`. */
export function clock(seconds, short = false) {
  const at = new Date(seconds * 1000);
  const text = `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
  return short ? text : `${text}.${pad(at.getMilliseconds(), 3)}`;
}

/** Date and time; the date only where it is not today's. */
export function moment(seconds, short = false) {
  const at = new Date(seconds * 1000);
  if (Number.isNaN(at.getTime())) return String(seconds);
  const date = `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
  const today = at.toDateString() === new Date().toDateString();
  return today ? clock(seconds, short) : `${date} ${clock(seconds, short)}`;
}

const MAX_PARTS = 8;
const MAX_PART_CHARS = 60;

/** What an item of any type says, in one line: its plain values, in the order they were sent. */
export function summary(data) {
  const parts = [];
  for (const [name, value] of Object.entries(data)) {
    if (value === null || typeof value === "object") continue;
    const text = typeof value === "number" ? plain(value) : cut(String(value), MAX_PART_CHARS);
    parts.push([name, text]);
    if (parts.length === MAX_PARTS) break;
  }
  return parts;
}

function plain(value) {
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(12)));
}

/** Text of at most so many characters. */
export function cut(text, most) {
  return text.length <= most ? text : `${text.slice(0, most - 1)}…`;
}
