// Everything with a symbol and a price: one series per symbol and source, a chart for each of those
// that are switched on.

import { PriceChart } from "./chart.js";
import { byId, el, paced, setText } from "./dom.js";
import { count, duration } from "./format.js";
import { Series } from "./series.js";
import { isAfter } from "./stream.js";

const MAX_SERIES = 60; // beyond these the least recently traded one goes
const SHOWN_AT_FIRST = 3;
const DRAW_EVERY_MS = 250;

export class Market {
  constructor({ onDecide }) {
    this.onDecide = onDecide;
    this.series = new Map(); // key -> Series, least recently traded first
    this.charts = new Map(); // key -> PriceChart
    this.hidden = new Set();
    this.place = byId("charts");
    this.chips = byId("market-symbols");
    this.empty = byId("market-empty");
    this.simulated = byId("market-simulated");
    this.window = byId("market-window");
    this.draw = paced(() => this.render(), DRAW_EVERY_MS);
    this.window.addEventListener("change", () => this.draw());
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", () => {
      for (const chart of this.charts.values()) chart.recolour();
    });
  }

  /** Show history first: the newest trades, newest first. */
  fill({ items, as_of }) {
    this.asOf = as_of;
    for (const item of items.toReversed()) this.add(item);
    this.draw();
  }

  /** Items from the stream, as {item}. */
  take(group) {
    for (const { item } of group) {
      if (!this.asOf || isAfter(item.id, this.asOf)) this.add(item);
    }
    this.draw();
  }

  /** Whether what is known of a symbol comes from a simulated market. */
  isSimulated(symbol) {
    const known = [...this.series.values()].filter((series) => series.symbol === symbol);
    return known.some((series) => series.simulated);
  }

  /** What the node says of its feeds. */
  showFeeds(feeds) {
    const shown = feeds.map((feed) => feedLine(feed));
    byId("feeds").replaceChildren(...shown);
    byId("feeds-empty").hidden = shown.length > 0;
  }

  add({ source, timestamp, data }) {
    if (typeof data?.symbol !== "string" || typeof data.price !== "number") return;
    const key = JSON.stringify([data.symbol, source]);
    const series = this.series.get(key) ?? this.open(data.symbol, source);
    this.series.delete(key);
    this.series.set(key, series);
    series.simulated ||= data.simulated === true;
    series.add(timestamp, data.price);
  }

  open(symbol, source) {
    if (this.series.size >= MAX_SERIES) {
      const [oldest] = this.series.keys();
      this.series.delete(oldest);
      this.close(oldest);
    }
    const key = JSON.stringify([symbol, source]);
    if (this.series.size >= SHOWN_AT_FIRST) this.hidden.add(key);
    this.listChanged = true;
    return new Series(symbol, source);
  }

  close(key) {
    this.charts.get(key)?.remove();
    this.charts.delete(key);
    this.listChanged = true;
  }

  render() {
    const windowS = Number(new FormData(this.window).get("window"));
    if (this.listChanged) this.list();
    for (const chart of this.charts.values()) chart.draw(windowS);
    this.empty.hidden = this.series.size > 0;
    const labelled = [...this.series.values()].filter((series) => series.simulated).length;
    this.simulated.hidden = labelled === 0;
    const all = labelled === this.series.size;
    setText(this.simulated, all ? ALL_SIMULATED : SOME_SIMULATED);
  }

  /** Charts and chips in the order of their names. */
  list() {
    this.listChanged = false;
    const keys = [...this.series.keys()].sort();
    for (const key of keys) {
      if (this.hidden.has(key)) this.close(key);
      else if (!this.charts.has(key)) {
        this.charts.set(key, new PriceChart(this.series.get(key), this.onDecide));
      }
    }
    this.listChanged = false;
    const shown = keys.filter((key) => this.charts.has(key));
    this.place.append(...shown.map((key) => this.charts.get(key).element));
    this.chips.replaceChildren(...keys.map((key) => this.chip(key)));
    this.chips.hidden = keys.length < 2;
  }

  chip(key) {
    const { symbol, source } = this.series.get(key);
    const alone = [...this.series.values()].every((s) => s.symbol !== symbol || s.source === source);
    const pressed = !this.hidden.has(key);
    const toggle = () => {
      if (pressed) this.hidden.add(key);
      else this.hidden.delete(key);
      this.list();
      this.draw();
      this.chips.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus();
    };
    const chip = el(
      "button",
      { type: "button", class: "chip", "aria-pressed": String(pressed), onclick: toggle },
      alone ? symbol : `${symbol} · ${source}`,
    );
    chip.dataset.key = key;
    return chip;
  }
}

const ALL_SIMULATED = "A simulated market: random prices, traded nowhere.";
const SOME_SIMULATED = "Charts labelled “simulated” show random prices, traded nowhere.";

function feedLine(feed) {
  const quiet = feed.last_message_age_s;
  const parts = [`${count(feed.items)} items`];
  if (quiet !== null && quiet > 5) parts.push(`quiet for ${duration(quiet)}`);
  if (feed.reconnects) parts.push(`${count(feed.reconnects)} reconnections`);
  if (feed.dropped) parts.push(`${count(feed.dropped)} dropped`);
  return el(
    "li",
    { title: feed.last_error ?? null },
    el("span", { class: "dot", "data-state": feed.state === "live" ? "good" : feed.state === "standby" ? "off" : "warn" }),
    " ",
    el("strong", {}, feed.feed),
    ` ${feed.state} · ${parts.join(" · ")}`,
    feed.last_error ? el("span", { class: "wrong" }, ` ${feed.last_error}`) : null,
  );
}
