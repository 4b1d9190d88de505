// Grep over everything the node holds, newest first, page by page.

import { post } from "./api.js";
import { byId, el, setOptions, setText } from "./dom.js";
import { bytes, count, milliseconds } from "./format.js";
import { marked } from "./highlight.js";
import { itemRow } from "./rows.js";

const PAGE = 50;
const MAX_ROWS = 1000;
const LEAD = 60; // characters shown before the first match of a long line
const EXCERPT = 420; // and how many in all

export class Search {
  constructor() {
    this.form = byId("search-form");
    this.results = byId("search-results");
    this.status = byId("search-status");
    this.empty = byId("search-empty");
    this.older = byId("search-older");
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.run();
    });
    this.form.addEventListener("change", (event) => {
      if (event.target.name !== "query" && this.wish().query) this.run();
    });
    this.older.addEventListener("click", () => this.page(this.next));
    document.addEventListener("keydown", (event) => this.shortcut(event));
  }

  /** Offer these types in the filter. */
  offerTypes(types) {
    setOptions(this.form.elements.type, "all types", types);
  }

  /** Search anew. */
  run() {
    this.asked = this.wish();
    this.results.replaceChildren();
    this.found = 0;
    this.older.hidden = true;
    this.page(null);
  }

  wish() {
    const fields = this.form.elements;
    const wish = { query: fields.query.value, regex: fields.regex.checked, limit: PAGE };
    wish.ignore_case = fields.ignore_case.checked;
    if (fields.type.value) wish.type = fields.type.value;
    if (fields.since.value) wish.since = Date.now() / 1000 - Number(fields.since.value);
    return wish;
  }

  async page(before) {
    this.request?.abort();
    this.request = new AbortController();
    const { signal } = this.request;
    this.results.setAttribute("aria-busy", "true");
    try {
      const body = before ? { ...this.asked, before } : this.asked;
      this.show(await post("/api/context/search", body, { signal }));
    } catch (error) {
      if (error.name === "AbortError") return;
      this.say(error.message, true);
      this.empty.hidden = true;
    }
    this.results.removeAttribute("aria-busy");
  }

  show({ items, next, partial, elapsed_ms: elapsed, scanned }) {
    if (this.results.childElementCount + items.length > MAX_ROWS) this.results.replaceChildren();
    this.results.append(...items.map((item) => itemRow(item, excerpt(item))));
    this.found += items.length;
    this.next = next;
    this.older.hidden = next === null;
    this.empty.hidden = this.found > 0 || partial;
    setText(this.empty, "Nothing matches. Upper and lower case differ unless told otherwise.");
    const hits = `${count(this.found)}${next ? "+" : ""} ${this.found === 1 && !next ? "item" : "items"}`;
    const seen = `${bytes(scanned.bytes)} read, ${count(scanned.skipped)} of ${count(scanned.blocks + scanned.skipped)} blocks skipped`;
    const cut = partial ? " Not finished in time: “older” goes on from here." : "";
    this.say(`${hits} in ${milliseconds(elapsed)} · ${seen}.${cut}`);
  }

  say(text, wrong = false) {
    this.status.classList.toggle("problem", wrong);
    setText(this.status, text);
  }

  shortcut(event) {
    const typing = event.target.matches?.("input, select, textarea");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.form.elements.query.focus();
  }
}

/** The part of the line around its first match. */
function excerpt({ line, matches }) {
  const first = matches.length ? matches[0][0] : 0;
  const from = first > LEAD * 3 ? first - LEAD : 0;
  return [el("code", {}, ...marked(line, matches, from, from + EXCERPT))];
}
