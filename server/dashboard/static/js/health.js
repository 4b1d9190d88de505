// The nodes: who leads, how fresh their heartbeats are, and how each machine fares.

import { byId, el, paced } from "./dom.js";
import { bytes, count, duration, percent } from "./format.js";

const SAMPLES = 120;
const STALE_S = 45;
const DRAW_EVERY_MS = 1000;
const SPARK = { width: 120, height: 28 };
const SVG = "http://www.w3.org/2000/svg";

export class Health {
  constructor() {
    this.place = byId("nodes-list");
    this.empty = byId("nodes-empty");
    this.nodes = new Map(); // id -> what /api/nodes says
    this.samples = new Map(); // id -> [{timestamp, data}], oldest first
    this.draw = paced(() => this.render(), DRAW_EVERY_MS);
  }

  /** Show history first: the newest samples, newest first. */
  fill({ items }) {
    this.take(items.toReversed().map((item) => ({ item })));
  }

  /** Items from the stream, as {item}. */
  take(group) {
    for (const { item } of group) {
      if (item.type === "system_health") this.add(item);
    }
  }

  /** What /api/nodes says. */
  showNodes({ nodes }) {
    this.nodes = new Map(nodes.map((node) => [node.id, node]));
    this.draw();
  }

  add({ id, timestamp, source, data }) {
    const node = typeof data.node === "string" ? data.node : source;
    const known = this.samples.get(node) ?? [];
    if (known.some((sample) => sample.id === id)) return;
    known.push({ id, timestamp, data });
    this.samples.set(node, known.slice(-SAMPLES));
    this.draw();
  }

  render() {
    const ids = [...new Set([...this.nodes.keys(), ...this.samples.keys()])].sort();
    this.empty.hidden = ids.length > 0;
    this.place.replaceChildren(...ids.map((id) => this.card(id)));
  }

  card(id) {
    const node = this.nodes.get(id);
    const samples = this.samples.get(id) ?? [];
    const newest = samples.at(-1);
    const card = el("li", { class: "node" }, this.head(id, node), node ? this.standing(node) : null);
    card.dataset.node = id;
    if (!newest) {
      card.append(el("p", { class: "muted small" }, "No health sample yet; one comes every few seconds."));
      return card;
    }
    const age = Date.now() / 1000 - newest.timestamp;
    if (age > STALE_S) {
      card.append(el("p", { class: "wrong small" }, `Newest sample is ${duration(age)} old.`));
    }
    card.append(meters(newest.data), load(samples), ...gpus(newest.data));
    return card;
  }

  /** Its term, how far its copy of the log is behind the newest, and what its score is made of. */
  standing(node) {
    const leader = [...this.nodes.values()].find((each) => each.role === "leader");
    const behind = leader ? leader.applied_offset - node.applied_offset : 0;
    const parts = Object.entries(node.score_parts ?? {}).map(([name, value]) => `${name} ${value}`);
    return el(
      "p",
      { class: "muted small", title: parts.join(", ") },
      [
        `term ${node.term}`,
        behind > 0 ? `${count(behind)} items behind` : "up to date",
        `score ${node.score}${parts.length ? ` (${parts.join(", ")})` : ""}`,
      ].join(" · "),
    );
  }

  head(id, node) {
    return el(
      "div",
      { class: "node-head" },
      el("span", { class: "dot", "data-state": DOTS[node?.state] ?? "off" }),
      el("strong", {}, id),
      node ? el("span", { class: "tag", "data-role": node.role }, node.role) : null,
      el("span", { class: "muted" }, node ? heartbeat(node) : "not in the cluster"),
    );
  }
}

const DOTS = { alive: "good", suspect: "warn", dead: "bad" };

function heartbeat({ state, heartbeat_age_s: age }) {
  return typeof age === "number" ? `${state} · heartbeat ${age < 1 ? "just now" : `${duration(age)} ago`}` : state;
}

function meters(data) {
  const rows = [
    ["CPU", data.cpu_percent, cores(data)],
    ["Memory", data.memory_percent, ofTotal(data.memory_used, data.memory_total)],
    ["Disk", data.disk_percent, free(data.disk_free)],
  ];
  return el("dl", { class: "meters" }, rows.map(([name, value, more]) => meter(name, value, more)));
}

function meter(name, value, more) {
  if (typeof value !== "number") return [];
  const fill = el("span", { "data-level": value >= 95 ? "bad" : value >= 85 ? "warn" : "good" });
  fill.style.width = `${Math.min(100, Math.max(0, value))}%`;
  return [
    el("dt", {}, name),
    el("dd", {}, el("span", { class: "track", "aria-hidden": "true" }, fill)),
    el("dd", { class: "value" }, percent(value / 100)),
    el("dd", { class: "muted" }, more),
  ];
}

function cores({ cpu_percent_per_core: each }) {
  return Array.isArray(each) ? `${each.length} ${each.length === 1 ? "core" : "cores"}` : "";
}

const ofTotal = (used, total) =>
  typeof used === "number" && typeof total === "number" ? `${bytes(used)} of ${bytes(total)}` : "";

const free = (left) => (typeof left === "number" ? `${bytes(left)} free` : "");

function load(samples) {
  const { data } = samples.at(-1);
  const loads = [data.load1, data.load5, data.load15].filter((value) => typeof value === "number");
  const parts = [];
  if (loads.length) parts.push(`load ${loads.map((value) => value.toFixed(2)).join("  ")}`);
  if (typeof data.temperature_max === "number") parts.push(`${Math.round(data.temperature_max)} °C`);
  const values = samples.map((sample) => sample.data.load1).filter((value) => typeof value === "number");
  const most = Math.max(1, ...values);
  return el(
    "div",
    { class: "load" },
    el("span", {}, parts.join(" · ")),
    values.length > 1 ? sparkline(values, most) : null,
  );
}

function sparkline(values, most) {
  const { width, height } = SPARK;
  const step = width / (values.length - 1);
  const y = (value) => height - 1 - (value / most) * (height - 3);
  const points = values.map((value, i) => `${(i * step).toFixed(1)},${y(value).toFixed(1)}`);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("class", "spark");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `load over the last ${values.length} samples, at most ${most.toFixed(2)}`);
  const line = document.createElementNS(SVG, "polyline");
  line.setAttribute("points", points.join(" "));
  svg.append(line);
  return svg;
}

function gpus({ gpus: each }) {
  if (!Array.isArray(each)) return [];
  return each.map((gpu) => {
    const parts = [String(gpu.name)];
    if (typeof gpu.percent === "number") parts.push(`${Math.round(gpu.percent)}%`);
    if (typeof gpu.memory_used === "number") parts.push(ofTotal(gpu.memory_used, gpu.memory_total));
    if (typeof gpu.temperature === "number") parts.push(`${Math.round(gpu.temperature)} °C`);
    return el("p", { class: "small" }, parts.join(" · "));
  });
}
