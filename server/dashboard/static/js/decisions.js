// What the models decided, newest first, with every vote behind it.

import { get, post } from "./api.js";
import { byId, el, nextFrame, setText } from "./dom.js";
import { milliseconds, moment, percent } from "./format.js";

const KEPT = 30;
const DEADLINE_MS = 5000;

export class Decisions {
  /** `isSimulated(symbol)` tells whether a symbol's prices are simulated. */
  constructor({ isSimulated }) {
    this.isSimulated = isSimulated;
    this.list = byId("decisions-list");
    this.empty = byId("decisions-empty");
    this.status = byId("decisions-status");
    this.shown = new Map(); // decision id -> {decision, element}, newest first in the list
  }

  /** Show what was decided before. */
  async fill() {
    const { decisions } = await get(`/api/context/ai/decisions?limit=${KEPT}`);
    for (const decision of decisions.toReversed()) this.show(decision);
  }

  /** Items from the stream, as {item}: decisions of anyone, and their outcomes. */
  take(group) {
    for (const { item } of group) {
      if (item.type === "ai_decision") this.show({ ...item.data, id: item.id, timestamp: item.timestamp });
      else if (item.type === "ai_outcome") this.judge(item.data);
    }
  }

  /** Have the models decide on a symbol now. */
  async decide(symbol, button) {
    button.disabled = true;
    button.setAttribute("aria-busy", "true");
    this.say(`The models decide on ${symbol}…`);
    try {
      const body = { symbols: [symbol], deadline_ms: DEADLINE_MS };
      const decision = await post("/api/context/ai/decide", body);
      this.show({ timestamp: Date.now() / 1000, ...decision });
      this.say(`${symbol}: ${decision.final_decision}, ${percent(decision.confidence)} confident.`);
      this.open(decision.decision_id);
    } catch (error) {
      this.say(error.message, true);
    } finally {
      button.disabled = false;
      button.removeAttribute("aria-busy");
    }
  }

  show(decision) {
    const id = String(decision.decision_id ?? decision.id);
    const known = this.shown.get(id);
    const element = this.card({ ...known?.decision, ...decision });
    if (known) {
      element.open = known.element.open;
      known.element.replaceWith(element);
    } else {
      this.list.prepend(element);
    }
    this.shown.set(id, { decision: { ...known?.decision, ...decision }, element });
    if (this.shown.size > KEPT) this.drop();
    this.empty.hidden = true;
  }

  judge({ decision_id: id, outcome }) {
    const known = this.shown.get(String(id));
    if (known) this.show({ ...known.decision, outcome });
  }

  drop() {
    const oldest = this.list.lastElementChild;
    for (const [id, { element }] of this.shown) if (element === oldest) this.shown.delete(id);
    oldest.remove();
  }

  open(id) {
    for (const { element } of this.shown.values()) element.open = false;
    const { element } = this.shown.get(id);
    element.open = true;
    nextFrame(() => element.scrollIntoView({ block: "nearest" }));
  }

  say(text, wrong = false) {
    this.status.hidden = false;
    this.status.classList.toggle("problem", wrong);
    setText(this.status, text);
  }

  card(decision) {
    const symbols = decision.symbols ?? [decision.symbol].filter(Boolean);
    const answer = String(decision.final_decision ?? decision.decision ?? "?");
    const head = el(
      "summary",
      {},
      el("span", { class: "answer", "data-answer": answer }, answer),
      el("strong", {}, symbols.join(", ") || String(decision.model ?? "")),
      symbols.some((symbol) => this.isSimulated(symbol))
        ? el("span", { class: "tag simulated" }, "simulated")
        : null,
      el("time", {}, moment(decision.timestamp, true)),
      el("span", { class: "facts" }, facts(decision)),
      decision.distribution ? bar(decision.distribution) : null,
    );
    const card = el("details", { class: "decision" }, head, ...this.votes(decision));
    card.dataset.id = String(decision.decision_id ?? decision.id);
    return card;
  }

  votes({ votes, reasoning, outcome, model, decision_id: id }) {
    const by = el("p", { class: "muted small" }, `${model ?? "unknown model"} · ${id ?? ""}`);
    const judged = outcome ? el("p", { class: "small" }, `It turned out: ${outcome}`) : null;
    if (!Array.isArray(votes)) {
      return [el("p", { class: "reasoning" }, reasoning ? String(reasoning) : "No reasoning given."), by];
    }
    const rows = votes.map((vote) => voteRow(vote));
    return [judged, el("ul", { class: "votes" }, rows), by].filter(Boolean);
  }
}

function facts({ confidence, agreement, outcome, final_decision: final, abstained, prediction_set: maybe }) {
  const parts = [];
  if (abstained && maybe) parts.push(`abstained: ${maybe.join(" or ")}`);
  if (typeof confidence === "number") parts.push(`confidence ${percent(confidence)}`);
  if (typeof agreement === "number") parts.push(`agreement ${percent(agreement)}`);
  if (outcome) parts.push(outcome === final ? "was right" : `was wrong: ${outcome}`);
  return parts.join(" · ");
}

const STATUS = {
  abstained: "abstained",
  timeout: "too late",
  error: "failed",
  unavailable: "not there",
};

function voteRow({ model, status, decision, confidence, distribution, weight, latency_ms, reasoning }) {
  const ok = status === "ok";
  const head = el(
    "div",
    { class: "vote-head" },
    el("strong", {}, String(model)),
    ok
      ? el("span", { class: "answer", "data-answer": decision }, `${decision} ${percent(confidence)}`)
      : el("span", { class: "tag", "data-status": status }, STATUS[status] ?? String(status)),
    el("span", { class: "muted" }, `weight ${percent(weight ?? 0)} · ${milliseconds(latency_ms ?? 0)}`),
  );
  return el(
    "li",
    { "data-model": String(model) },
    head,
    distribution ? bar(distribution) : null,
    reasoning ? el("p", { class: "reasoning" }, String(reasoning)) : null,
  );
}

/** A distribution as one bar, with its numbers as text. */
function bar(distribution) {
  const entries = Object.entries(distribution).filter(([, share]) => typeof share === "number");
  const pieces = entries.map(([name, share]) => {
    const piece = el("span", { "data-answer": name });
    piece.style.flexGrow = String(Math.max(0, share));
    return piece;
  });
  const words = entries.map(([name, share]) => `${name} ${percent(share)}`).join(" · ");
  return el(
    "span",
    { class: "distribution" },
    el("span", { class: "bar", "aria-hidden": "true" }, pieces),
    el("span", { class: "legend" }, words),
  );
}
