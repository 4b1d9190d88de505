// Trading: the mode, profit and positions, and the buttons that start it on paper and stop it.

import { get, post } from "./api.js";
import { byId, el, paced, setText } from "./dom.js";
import { moment, price } from "./format.js";

const EVERY_MS = 500; // at most, while entries come

export class Trading {
  constructor() {
    this.head = byId("trading-state");
    this.body = byId("trading-body");
    this.status = byId("trading-status");
    this.form = byId("trading-form");
    this.stopButton = byId("trading-stop");
    this.soon = paced(() => this.refresh().catch(() => undefined), EVERY_MS);
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.act("/api/context/trading/start", { mode: this.form.elements.mode.value });
    });
    this.stopButton.addEventListener("click", () => this.act("/api/context/trading/stop", {}));
  }

  /** Ask the node how it stands; the modes once. */
  async refresh() {
    const select = this.form.elements.mode;
    if (select.options.length === 0) {
      const { modes } = await get("/api/context/trading/modes");
      const named = Object.keys(modes).map((mode) => el("option", { value: mode }, words(mode)));
      select.replaceChildren(...named);
    }
    this.show(await get("/api/context/trading"));
  }

  /** Items from the stream, as {item}: trading wrote something. */
  take(group) {
    const stirs = ({ item }) => item.type === "ai_trade" || item.type === "emergency_stop";
    if (group.some(stirs)) this.soon();
  }

  async act(path, body) {
    this.say("");
    try {
      this.show(await post(path, body));
    } catch (error) {
      this.say(error.message);
    }
  }

  say(text) {
    this.status.hidden = !text;
    setText(this.status, text);
  }

  show(document) {
    const { trading, live } = document;
    this.form.hidden = trading || document.emergency_stop;
    this.stopButton.hidden = !trading;
    this.head.dataset.state = live ? "live" : trading ? "on" : "off";
    setText(this.head, stateOf(document));
    const known = document.accounts.filter((each) => !trading || each.account === document.account);
    this.body.replaceChildren(
      ...known.map(accountCard),
      known.length === 0 ? el("p", { class: "empty" }, "Nothing was traded yet.") : "",
      document.open_orders.length ? ordersLine(document.open_orders) : "",
      !trading && document.last_stop ? stopLine(document.last_stop) : "",
    );
  }
}

function stateOf({ trading, mode, broker, live, emergency_stop: stopped }) {
  if (stopped) return "emergency stop";
  if (!trading) return "off";
  return `${words(mode)} · ${live ? "REAL MONEY" : broker === "paper" ? "paper" : "sandbox"}`;
}

function accountCard(account) {
  const facts = [
    ["equity", account.equity],
    ["profit", account.profit, true],
    ["today", account.day_profit, true],
    ["realised", account.realised, true],
    ["unrealised", account.unrealised, true],
    ["fees", account.fees],
  ];
  const list = facts.map(([name, value, signed]) =>
    el("div", {}, el("dt", {}, name), el("dd", direction(signed, value), money(value, signed))),
  );
  const rows = account.positions.map((position) =>
    el(
      "li",
      {},
      el("strong", {}, position.symbol),
      el("span", { class: "muted" }, `${Number(position.qty)} at ${price(Number(position.average))}`),
      el("span", direction(true, position.unrealised), money(position.unrealised, true)),
    ),
  );
  const none = el("li", { class: "muted" }, "no positions");
  return el(
    "div",
    { class: "account" },
    el("p", { class: "muted small" }, account.account),
    el("dl", { class: "money" }, list),
    el("ul", { class: "positions" }, rows.length ? rows : none),
  );
}

function ordersLine(orders) {
  const told = orders.map(({ side, qty, symbol }) => `${side} ${Number(qty)} ${symbol}`);
  return el("p", { class: "small muted" }, `Open: ${told.join(", ")}`);
}

function stopLine({ at, reason }) {
  return el("p", { class: "small muted" }, `Stopped ${moment(at, true)}: ${words(reason)}.`);
}

function direction(signed, value) {
  const number = Number(value);
  return signed && number !== 0 ? { "data-direction": number > 0 ? "up" : "down" } : {};
}

function money(value, signed = false) {
  const text = Math.abs(Number(value)).toLocaleString("en-US", {
    minimumFractionDigits: 2,
    maximumFractionDigits: 2,
  });
  if (Number(value) < 0) return `−${text}`;
  return signed && Number(value) > 0 ? `+${text}` : text;
}

function words(name) {
  return String(name).replaceAll("_", " ");
}
