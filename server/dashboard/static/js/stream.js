// The page's one connection to the log. Items arrive once and in order, from a cursor on, whatever
// happens to the connection. Everything on the page that is live hangs on this.

import { address, get, post } from "./api.js";
import { token } from "./token.js";

const FLUSH_MS = 60; // items are handed on in groups: one layout for many
const MAX_WAITING = 4000; // in a hidden tab timers are rare; beyond so many, hand on at once
const SILENCE_S = 12; // the node is ahead and nothing came for so long: the connection is dead
const MAX_BEHIND = 50_000; // items; beyond that live is worth more than complete
const RETRY_MS = [500, 1000, 2000, 5000];

/** Split a cursor; offset is a number. */
export function parseCursor(cursor) {
  const at = cursor.lastIndexOf(":");
  return { epoch: cursor.slice(0, at), offset: Number(cursor.slice(at + 1)) };
}

/** Whether `cursor` lies after `last`; one of another epoch always does. */
export function isAfter(cursor, last) {
  const [a, b] = [parseCursor(cursor), parseCursor(last)];
  return a.epoch !== b.epoch || a.offset > b.offset;
}

export class Stream {
  /**
   * `onItems` gets arrays of {item, raw}, `onGap` gets {missed_from, missed_to, why}, and `onState`
   * "live" or "reconnecting".
   */
  constructor({ onItems, onGap, onState }) {
    this.onItems = onItems;
    this.onGap = onGap;
    this.onState = onState;
    this.waiting = [];
    this.flushTimer = 0;
    this.retryTimer = 0;
    this.failures = 0;
    this.turn = 0; // of opening; an older one that is still under way gives up
  }

  /** Follow everything after a cursor. */
  start(cursor) {
    this.cursor = cursor;
    this.open();
  }

  /** Told the node's newest cursor now and then: notices a dead or hopelessly late connection. */
  check(newest) {
    if (!this.source) return;
    const [here, there] = [parseCursor(this.cursor), parseCursor(newest)];
    if (here.epoch !== there.epoch || there.offset <= here.offset) return;
    if (there.offset - here.offset > MAX_BEHIND) {
      this.skipTo(newest, "skipped to stay live: more arrives than a page can take in");
    } else if (performance.now() - this.heardAt > SILENCE_S * 1000) {
      this.reopen();
    }
  }

  async open() {
    this.source = null;
    this.turn += 1;
    const turn = this.turn;
    let ticket = "";
    try {
      if (token()) ticket = (await post("/api/context/tickets", {})).ticket;
    } catch {
      if (turn === this.turn) this.retry();
      return;
    }
    if (turn === this.turn) this.connect(ticket);
  }

  /** A stream cannot send the token: it brings a ticket, which is good once. */
  connect(ticket) {
    this.heardAt = performance.now();
    const source = new EventSource(address("/api/context/stream", { after: this.cursor, ticket }));
    this.source = source;
    source.addEventListener("open", () => {
      this.failures = 0;
      this.onState("live");
    });
    source.addEventListener("context", (event) => this.take(event));
    source.addEventListener("gap", (event) => this.takeGap(event));
    source.addEventListener("error", () => this.failed(source));
  }

  take(event) {
    this.heardAt = performance.now();
    this.cursor = event.lastEventId;
    this.waiting.push(event.data);
    if (this.waiting.length >= MAX_WAITING) this.flush();
    else this.flushTimer ||= setTimeout(() => this.flush(), FLUSH_MS);
  }

  takeGap(event) {
    this.flush();
    if (event.lastEventId) this.cursor = event.lastEventId;
    this.onGap({ ...JSON.parse(event.data), why: "this part of the history is gone" });
  }

  flush() {
    clearTimeout(this.flushTimer);
    this.flushTimer = 0;
    const group = this.waiting.map((raw) => ({ item: JSON.parse(raw), raw }));
    this.waiting = [];
    if (group.length) this.onItems(group);
  }

  failed(source) {
    if (source !== this.source) return;
    this.onState("reconnecting");
    // The browser itself goes on from the last id after a cut; after a refusal it gives up.
    if (source.readyState === EventSource.CLOSED) this.retry();
  }

  retry() {
    this.source?.close();
    this.source = null;
    clearTimeout(this.retryTimer);
    const pause = RETRY_MS[Math.min(this.failures, RETRY_MS.length - 1)];
    this.failures += 1;
    this.retryTimer = setTimeout(() => this.resume(), pause);
  }

  /** Find out where the log ends before asking to go on: our cursor may lie beyond its end. */
  async resume() {
    let end;
    try {
      end = (await get("/api/context/latest?limit=1")).as_of;
    } catch {
      this.retry();
      return;
    }
    const [here, there] = [parseCursor(this.cursor), parseCursor(end)];
    if (here.epoch === there.epoch && here.offset > there.offset) {
      this.skipTo(end, "the log now ends earlier than what was seen here");
    } else {
      this.open();
    }
  }

  skipTo(cursor, why) {
    this.flush();
    this.onGap({ missed_from: this.cursor, missed_to: cursor, why });
    this.cursor = cursor;
    this.reopen();
  }

  reopen() {
    this.onState("reconnecting");
    this.source?.close();
    this.open();
  }
}
