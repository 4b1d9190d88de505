// A line with its matches marked. `matches` count characters (Unicode code points), JavaScript's
// strings count UTF-16 units: the difference shows with the first emoji.

import { el } from "./dom.js";

const ASTRAL = /[\ud800-\udfff]/;

/** Cut a line at its matches: [{text, hit}] from code point `from` up to `to`. */
export function segments(line, matches, from = 0, to = Infinity) {
  const chars = ASTRAL.test(line) ? Array.from(line) : null;
  const length = chars ? chars.length : line.length;
  const piece = (a, b) => (chars ? chars.slice(a, b).join("") : line.slice(a, b));
  const end = Math.min(to, length);
  const made = [];
  let at = from;
  for (const [first, last] of matches) {
    const [a, b] = [Math.max(first, at), Math.min(last, end)];
    if (b <= a) continue;
    if (a > at) made.push({ text: piece(at, a), hit: false });
    made.push({ text: piece(a, b), hit: true });
    at = b;
  }
  if (at < end) made.push({ text: piece(at, end), hit: false });
  return { parts: made, before: from > 0, after: end < length };
}

/** Nodes of a line, its hits in <mark>; what was cut off shows as an ellipsis. */
export function marked(line, matches, from, to) {
  const { parts, before, after } = segments(line, matches, from, to);
  const nodes = parts.map(({ text, hit }) => (hit ? el("mark", {}, text) : text));
  return [before ? "… " : "", ...nodes, after ? " …" : ""];
}
