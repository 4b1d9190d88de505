// Puts the page together: history first, then one stream for everything, and what the node says of
// itself every few seconds.

import { get } from "./api.js";
import { ConsensusPanel } from "./consensus.js";
import { Control } from "./control.js";
import { Decisions } from "./decisions.js";
import { byId, el, setText } from "./dom.js";
import { bytes, count, rate } from "./format.js";
import { Health } from "./health.js";
import { Live } from "./live.js";
import { Market } from "./market.js";
import { Search } from "./search.js";
import { Stream } from "./stream.js";
import { Trading } from "./trading.js";

const STATS_EVERY_MS = 2000;
const NODES_EVERY_MS = 5000;
const CONSENSUS_EVERY_MS = 10_000; // and with every outcome
const RETRY_MS = 2000;
const TRADES = 5000;
const SAMPLES = 120;

const live = new Live();
const search = new Search();
const health = new Health();
const control = new Control();
const market = new Market({ onDecide: (symbol, button) => decisions.decide(symbol, button) });
const decisions = new Decisions({ isSimulated: (symbol) => market.isSimulated(symbol) });
const consensus = new ConsensusPanel();
const trading = new Trading();
const panels = [live, market, health, decisions, consensus, control, trading];
const stream = new Stream({
  onItems: (group) => panels.forEach((panel) => panel.take(group)),
  onGap: (gap) => live.gap(gap),
  onState: showConnection,
});

const WORDS = { live: "live", connecting: "connecting…", reconnecting: "reconnecting…" };

function showConnection(state) {
  const pill = byId("connection");
  pill.dataset.state = state;
  setText(byId("connection-words"), WORDS[state]);
}

/** Show history, then follow from where it ends: what came in between arrives by the stream. */
async function begin() {
  const newest = await get("/api/context/latest?limit=60");
  const [trades, samples] = await Promise.all([
    get(`/api/context/latest?type=trading_data&limit=${TRADES}`),
    get(`/api/context/latest?type=system_health&limit=${SAMPLES}`),
    decisions.fill(),
  ]);
  live.fill(newest);
  market.fill(trades);
  health.fill(samples);
  stream.start(newest.as_of);
}

function showStats(stats) {
  setText(byId("stat-rate"), rate(stats.rates.items_per_s_10s));
  setText(byId("stat-items"), count(stats.items));
  setText(byId("stat-bytes"), bytes(stats.bytes));
  market.showFeeds(stats.feeds ?? []);
  stream.check(stats.newest);
}

function showNodes(answer) {
  setText(byId("stat-leader"), answer.leader ?? "none");
  setText(byId("stat-term"), String(answer.term));
  health.showNodes(answer);
}

async function showTypes() {
  const { types } = await get("/api/context/types");
  const names = types.map((type) => type.name).sort();
  search.offerTypes(names);
  live.offerTypes(names);
}

/** Do something now and every so often; a failure is tried again the next time. */
function repeat(work, everyMs) {
  const again = async () => {
    await work().catch(() => undefined);
    setTimeout(again, everyMs);
  };
  again();
}

/** Do something until it works once. */
async function untilDone(work) {
  for (;;) {
    try {
      await work();
      showTrouble("");
      return;
    } catch (error) {
      showTrouble(error.message);
      await new Promise((done) => setTimeout(done, RETRY_MS));
    }
  }
}

function showTrouble(text) {
  const place = byId("trouble");
  place.hidden = !text;
  place.replaceChildren(el("span", {}, text));
}

showConnection("connecting");
repeat(async () => showStats(await get("/api/context/stats")), STATS_EVERY_MS);
repeat(async () => showNodes(await get("/api/nodes")), NODES_EVERY_MS);
repeat(() => control.refresh(), NODES_EVERY_MS);
repeat(() => trading.refresh(), STATS_EVERY_MS);
repeat(() => consensus.refresh(), CONSENSUS_EVERY_MS);
repeat(showTypes, 30_000);
untilDone(begin);
