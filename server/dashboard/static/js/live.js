// The newest items as they arrive. Shows a sample where more arrive than anyone could read, and
// stands still while somebody reads.

import { address, get, post } from "./api.js";
import { byId, el, paced, setOptions, setText } from "./dom.js";
import { count } from "./format.js";
import { itemRow } from "./rows.js";
import { isAfter } from "./stream.js";

const MAX_ROWS = 150;
const MAX_WAITING = 300; // newest items kept while the list stands still
const DRAW_EVERY_MS = 250;
const ROWS_PER_DRAW = 25; // a hundred a second is more than anyone reads
const FILL = 60;
const MAX_NAMES = 300; // of sources and symbols offered in the filters

export class Live {
  constructor() {
    this.list = byId("live-list");
    this.note = byId("live-note");
    this.empty = byId("live-empty");
    this.newer = byId("live-newer");
    this.pauseButton = byId("live-pause");
    this.form = byId("live-filter");
    this.waiting = []; // {item} or {gap}, oldest first
    this.passed = 0; // how many of the waiting there were before the list was cut
    this.paused = false;
    this.seen = { type: new Set(), source: new Set(), symbol: new Set() };
    this.draw = paced(() => this.render(), DRAW_EVERY_MS);
    this.pauseButton.addEventListener("click", () => this.pause(!this.paused));
    this.newer.addEventListener("click", () => this.catchUp());
    this.list.addEventListener("scroll", () => this.draw(), { passive: true });
    this.list.addEventListener("toggle", () => this.draw(), { capture: true });
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", () => this.refilter());
  }

  /** Show history first: `answer` is what `latest` or `search` gave. */
  fill({ items, as_of }) {
    this.asOf = as_of;
    const later = this.waiting.filter(({ item }) => !item || isAfter(item.id, as_of));
    this.waiting = [...items.toReversed().map((item) => ({ item })), ...later];
    this.passed = this.waiting.length;
    this.remember(items);
    this.draw();
  }

  /** Items from the stream, as {item, raw}. */
  take(group) {
    this.remember(group.map(({ item }) => item));
    const fitting = group.filter(({ item, raw }) => this.fits(item, raw));
    if (fitting.length) this.add(fitting);
  }

  /** A part of the history that is missing. */
  gap(gap) {
    this.add([{ gap }]);
  }

  /** Offer these types in the filter even before one is seen. */
  offerTypes(types) {
    for (const type of types) this.seen.type.add(type);
    this.offer();
  }

  add(entries) {
    this.waiting.push(...entries);
    this.passed += entries.length;
    if (this.waiting.length > MAX_WAITING) this.waiting = this.waiting.slice(-MAX_WAITING);
    this.draw();
  }

  fits(item, raw) {
    if (this.asOf && !isAfter(item.id, this.asOf)) return false;
    const { type, source, symbol, contains } = this.wish();
    if (type && item.type !== type) return false;
    if (source && item.source !== source) return false;
    if (symbol && item.data?.symbol !== symbol) return false;
    if (!contains) return true;
    const line = raw.slice(raw.indexOf('"type":')); // as searches see it: without id and offset
    return line.toLowerCase().includes(contains.toLowerCase());
  }

  wish() {
    return Object.fromEntries(new FormData(this.form));
  }

  /** Begin again with the history that fits the new filter. */
  async refilter() {
    this.waiting = [];
    this.passed = 0;
    this.list.replaceChildren();
    this.request?.abort();
    this.request = new AbortController();
    const options = { signal: this.request.signal };
    const { contains, ...filter } = this.wish();
    const given = Object.fromEntries(Object.entries(filter).filter(([, value]) => value));
    const query = { query: contains, ignore_case: true, limit: FILL, ...given };
    try {
      const answer = contains
        ? await post("/api/context/search", query, options)
        : await get(address("/api/context/latest", { ...filter, limit: FILL }), options);
      this.fill(answer);
    } catch (error) {
      if (error.name !== "AbortError") this.draw(); // what arrives from now on is shown anyway
    }
  }

  remember(items) {
    let grew = false;
    const learn = (known, name) => {
      if (typeof name !== "string" || known.has(name) || known.size >= MAX_NAMES) return;
      known.add(name);
      grew = true;
    };
    for (const item of items) {
      learn(this.seen.type, item.type);
      learn(this.seen.source, item.source);
      learn(this.seen.symbol, item.data?.symbol);
    }
    if (grew) this.offer();
  }

  offer() {
    for (const name of ["type", "source", "symbol"]) {
      setOptions(this.form.elements[name], `all ${name}s`, [...this.seen[name]].sort());
    }
  }

  pause(paused) {
    this.paused = paused;
    this.pauseButton.setAttribute("aria-pressed", String(paused));
    setText(this.pauseButton, paused ? "Resume" : "Pause");
    this.draw();
  }

  /** Nobody wants the text to move away under their eyes. */
  reading() {
    return this.list.scrollTop > 4 || this.list.querySelector("details[open]") !== null;
  }

  catchUp() {
    for (const row of this.list.querySelectorAll("details[open]")) row.open = false;
    this.list.scrollTop = 0;
    this.pause(false);
    this.list.focus();
  }

  render() {
    const still = this.paused || this.reading();
    if (!still && this.waiting.length) this.prepend();
    const later = still && this.passed > 0;
    this.newer.hidden = !later;
    if (later) setText(this.newer, `${count(this.passed)} newer — show them`);
    setText(this.note, this.paused ? "paused" : still ? "held while you read" : "");
    const nothing = this.list.childElementCount === 0;
    this.empty.hidden = !nothing;
    if (nothing) setText(this.empty, this.emptyText());
  }

  prepend() {
    const shown = this.waiting.slice(this.list.childElementCount ? -ROWS_PER_DRAW : -FILL);
    const unseen = this.passed - shown.length;
    const nodes = shown.toReversed().map(({ item, gap }) => (item ? itemRow(item) : gapRow(gap)));
    if (unseen > 0 && this.list.childElementCount) {
      nodes.push(el("p", { class: "skipped" }, `${count(unseen)} more, too fast to show`));
    }
    this.waiting = [];
    this.passed = 0;
    this.list.prepend(...nodes);
    while (this.list.childElementCount > MAX_ROWS) this.list.lastElementChild.remove();
  }

  emptyText() {
    const filtered = Object.values(this.wish()).some(Boolean);
    return filtered
      ? "Nothing fits this filter yet. What arrives and fits will appear here."
      : "No items yet: start the node with --feed simulated, or POST to /api/context/ingest.";
  }
}

function gapRow({ missed_from, missed_to, why }) {
  return el("p", { class: "gap" }, `Gap from ${missed_from} to ${missed_to}: ${why}.`);
}
