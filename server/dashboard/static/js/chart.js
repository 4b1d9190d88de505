// One price chart: the line of closes over the band from low to high.

import uPlot from "../vendor/uplot-1.6.32/uPlot.esm.js";
import { el, setText } from "./dom.js";
import { change, clock, count, moment, price } from "./format.js";

const FONT = "11px system-ui, sans-serif";
const FLAT = 0.00005; // a change that shows as 0.00%
const ROOM = 0.08; // above and below the prices, as a share of their range

/** The colour that a CSS variable has now: dark and light differ. */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

export class PriceChart {
  /** `onDecide(symbol, button)` is called when its button is pressed. */
  constructor(series, onDecide) {
    this.series = series;
    this.name = el("h3", {}, series.symbol);
    this.price = el("span", { class: "price" });
    this.change = el("span", { class: "change" });
    this.caption = el("span");
    this.label = el("span", { class: "tag simulated", hidden: true }, "simulated");
    this.button = el("button", { type: "button", class: "small" }, "Decide");
    this.button.setAttribute("aria-label", `Let the models decide on ${series.symbol}`);
    this.button.addEventListener("click", () => onDecide(series.symbol, this.button));
    this.plotAt = el("div", { class: "plot", role: "img" });
    this.element = el(
      "article",
      { class: "chart" },
      el("header", {}, this.name, this.price, this.change, this.button),
      this.plotAt,
      el("p", { class: "under" }, this.label, this.caption),
    );
    this.element.dataset.symbol = series.symbol;
    this.resizes = new ResizeObserver(() => this.fit());
    this.resizes.observe(this.plotAt);
  }

  /** Draw the last seconds. */
  draw(windowS) {
    this.windowS = windowS;
    const { series } = this;
    const moved = series.change(windowS);
    setText(this.price, series.last === null ? "–" : price(series.last));
    setText(this.change, change(moved));
    this.change.dataset.direction = moved > FLAT ? "up" : moved < -FLAT ? "down" : "flat";
    this.label.hidden = !series.simulated;
    if (!this.hovered) setText(this.caption, this.about());
    this.plotAt.setAttribute("aria-label", this.inWords(moved));
    this.element.dataset.points = series.bars.length;
    this.plot ??= this.plotAt.clientWidth ? this.make() : undefined;
    this.plot?.setData(series.columns(windowS));
  }

  /** The colours of the page changed. */
  recolour() {
    this.plot?.destroy();
    this.plot = undefined;
    if (this.windowS) this.draw(this.windowS);
  }

  /** Take it off the page. */
  remove() {
    this.resizes.disconnect();
    this.plot?.destroy();
    this.element.remove();
  }

  about() {
    const { source, trades, bars } = this.series;
    const newest = bars.length ? moment(bars[bars.length - 1].at, true) : "";
    const from = source === "simulated" ? "" : `${source} · `;
    return `${from}${count(trades)} trades here · ${newest}`;
  }

  inWords(moved) {
    const { symbol, last, simulated } = this.series;
    const kind = simulated ? "Simulated price" : "Price";
    return `${kind} of ${symbol}: ${last === null ? "none yet" : price(last)}, ${change(moved)}`;
  }

  fit() {
    const { clientWidth: width, clientHeight: height } = this.plotAt;
    if (!width || !height) return;
    if (this.plot) this.plot.setSize({ width, height });
    else if (this.windowS) this.draw(this.windowS);
  }

  make() {
    const line = colour("--accent");
    const grid = { stroke: colour("--line"), width: 1 };
    const ticks = { show: false };
    const axis = { stroke: colour("--muted"), font: FONT, grid, ticks };
    const times = (_, splits) => splits.map((time) => clock(time, true));
    const prices = (_, splits) => splits.map((value) => price(value));
    const bound = { stroke: "transparent", width: 0, points: { show: false } };
    return new uPlot(
      {
        width: this.plotAt.clientWidth,
        height: this.plotAt.clientHeight,
        padding: [6, 6, 0, 0],
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false } },
        scales: { y: { range: (_, low, high) => around(low, high) } },
        axes: [
          { ...axis, values: times, size: 24, space: 72 },
          { ...axis, values: prices, size: 68, space: 32 },
        ],
        series: [
          {},
          { stroke: line, width: 1.5, points: { show: false } },
          bound,
          bound,
        ],
        bands: [{ series: [3, 2], fill: colour("--band") }],
        hooks: { setCursor: [(plot) => this.hover(plot)] },
      },
      this.series.columns(this.windowS),
      this.plotAt,
    );
  }

  hover(plot) {
    const i = plot.cursor.idx;
    const time = i === null || i === undefined ? undefined : plot.data[0][i];
    this.hovered = time !== undefined;
    const [close, low, high] = this.hovered ? plot.data.slice(1).map((values) => values[i]) : [];
    const text = this.hovered
      ? `${moment(time, true)} · ${price(close)} (${price(low)} to ${price(high)})`
      : this.about();
    setText(this.caption, text);
  }
}

function around(low, high) {
  const room = (high - low) * ROOM || Math.abs(high) * 0.001 || 1;
  return [low - room, high + room];
}
