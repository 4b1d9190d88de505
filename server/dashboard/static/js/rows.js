// One item as a row that opens: time, type, where from and what it says; opened, all of it.

import { el } from "./dom.js";
import { moment, summary } from "./format.js";

/** A row; `body` are the nodes that say what it holds, by default the item's plain values. */
export function itemRow(item, body = null) {
  const simulated = item.data?.simulated === true;
  const head = el(
    "summary",
    {},
    el("time", { datetime: isoOf(item.timestamp) }, moment(item.timestamp)),
    el("span", { class: "tag" }, item.type),
    simulated && item.source === "simulated" ? null : el("span", { class: "from" }, item.source),
    simulated ? el("span", { class: "tag simulated" }, "simulated") : null,
    el("span", { class: "says" }, ...(body ?? values(item.data))),
  );
  const row = el("details", { class: "row" }, head);
  row.addEventListener("toggle", () => open(row, item), { once: true });
  return row;
}

function values(data) {
  return summary(data ?? {}).flatMap(([name, text]) => [
    el("span", { class: "name" }, `${name} `),
    el("span", { class: "value" }, text),
    "  ",
  ]);
}

function open(row, item) {
  const { line, matches, ...whole } = item; // a search hit carries its line as well
  row.append(el("pre", { tabindex: "0" }, JSON.stringify(whole, null, 2)));
}

function isoOf(seconds) {
  const at = new Date(seconds * 1000);
  return Number.isNaN(at.getTime()) ? null : at.toISOString();
}
