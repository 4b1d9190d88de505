// How the consensus does: regret and its bound, coverage over time, reliability, and who weighs what.

import { get } from "./api.js";
import { byId, el, paced, setText } from "./dom.js";
import { count, percent } from "./format.js";

const EVERY_MS = 2000; // at most, while outcomes come
const SVG = "http://www.w3.org/2000/svg";
const SIZE = { width: 160, height: 80 };
const PAD = 7;

export class ConsensusPanel {
  constructor() {
    this.body = byId("consensus-body");
    this.empty = byId("consensus-empty");
    this.rule = byId("consensus-rule");
    this.select = byId("consensus-symbol");
    this.told = null;
    this.soon = paced(() => this.refresh().catch(() => undefined), EVERY_MS);
    this.select.addEventListener("change", () => this.render());
  }

  async refresh() {
    this.told = await get("/api/context/ai/consensus");
    this.render();
  }

  /** Items from the stream, as {item}: something turned out. */
  take(group) {
    if (group.some(({ item }) => item.type === "ai_outcome")) this.soon();
  }

  render() {
    const { told } = this;
    setText(this.rule, `${told.rule} weights`);
    this.empty.hidden = told.total.outcomes > 0;
    this.body.hidden = this.select.hidden = told.total.outcomes === 0;
    if (told.total.outcomes === 0) return;
    const symbols = told.symbols.map((each) => each.symbol);
    const have = [...this.select.options].map((option) => option.value);
    if (have.join("\n") !== symbols.join("\n")) {
      const chosen = this.select.value;
      const named = symbols.map((symbol) => el("option", { value: symbol }, nameOf(symbol)));
      this.select.replaceChildren(...named);
      if (symbols.includes(chosen)) this.select.value = chosen;
    }
    const shown = told.symbols.find((each) => each.symbol === this.select.value) ?? told.symbols[0];
    const [coverage] = told.coverages.toSorted((a, b) => b.judged - a.judged);
    this.body.replaceChildren(
      figures(told, coverage),
      el("div", { class: "plots" }, reliability(told.calibration), overTime(coverage)),
      weights(shown),
    );
  }
}

const nameOf = (symbol) => (symbol === "*" ? "several at once" : symbol);
const signed = (value) => (value < 0 ? `−${(-value).toFixed(1)}` : value.toFixed(1));

function figures({ total }, coverage) {
  const { regret, bound, best_model: best } = total;
  const parts = [
    ["Outcomes", count(total.outcomes), ""],
    ["Regret", signed(regret), `at most ${bound.value.toFixed(1)} (${bound.kind}), to ${best}`],
  ];
  if (coverage) {
    parts.push(["Covered", percent(coverage.coverage, 1), `of ${percent(coverage.target)} stated`]);
    parts.push(["Answers", percent(coverage.acted), "the rest are abstentions"]);
  }
  const shown = parts.map(([name, value, more]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, value), el("dd", { class: "muted" }, more)),
  );
  return el("dl", { class: "consensus-figures" }, shown);
}

function weights({ symbol, weights: shares, leaning, outcomes }) {
  const rows = Object.entries(shares).toSorted((a, b) => b[1] - a[1]);
  const meters = rows.map(([name, share]) => {
    const fill = el("span", {});
    fill.style.width = percent(share);
    return [
      el("dt", {}, name),
      el("dd", {}, el("span", { class: "track", "aria-hidden": "true" }, fill)),
      el("dd", { class: "value" }, percent(share)),
      el("dd", {}),
    ];
  });
  const words = `${nameOf(symbol)}: ${count(outcomes)} outcomes, leans ${percent(leaning)} on all symbols`;
  return el("div", {}, el("p", { class: "muted small" }, words), el("dl", { class: "meters" }, meters));
}

/** How often it was right, by how sure it was: on the diagonal it means what it says. */
function reliability({ reliability: bins, error }) {
  const most = Math.max(1, ...bins.map((bin) => bin.count));
  const dots = bins.map((bin) =>
    shape("circle", {
      cx: across(bin.confidence),
      cy: up(bin.right),
      r: 2 + 4 * Math.sqrt(bin.count / most),
    }),
  );
  const diagonal = shape("line", { x1: across(0), y1: up(0), x2: across(1), y2: up(1), class: "aim" });
  const words = `Sure, and right: off by ${percent(error ?? 0, 1)} on average`;
  return figure(words, [diagonal, ...dots]);
}

function overTime(coverage) {
  if (!coverage || coverage.series.length < 2) return null;
  const { series, target } = coverage;
  const points = series.map((point, i) => `${across(i / (series.length - 1))},${up(point.coverage)}`);
  const aim = shape("line", { x1: across(0), y1: up(target), x2: across(1), y2: up(target), class: "aim" });
  const words = `Coverage over time, ${percent(target)} stated (dashed)`;
  return figure(words, [aim, shape("polyline", { points: points.join(" ") })]);
}

const across = (share) => (PAD + share * (SIZE.width - 2 * PAD)).toFixed(1);
const up = (share) => (SIZE.height - PAD - share * (SIZE.height - 2 * PAD)).toFixed(1);

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  return made;
}

function figure(words, shapes) {
  const { width, height } = SIZE;
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words });
  svg.append(...shapes);
  return el("figure", {}, svg, el("figcaption", { class: "muted small" }, words));
}
