// Prices of one symbol from one source, a bar a second of event time. Pure and bounded.

const MAX_BARS = 3600;

export class Series {
  constructor(symbol, source) {
    this.symbol = symbol;
    this.source = source;
    this.simulated = false;
    this.trades = 0;
    this.bars = []; // {time, low, high, close, at}, in order of time
  }

  /** Newest price, or null. */
  get last() {
    return this.bars.length ? this.bars[this.bars.length - 1].close : null;
  }

  /** Take a trade; late ones go where they belong. */
  add(timestamp, price) {
    const time = Math.floor(timestamp);
    let i = this.bars.length - 1;
    while (i >= 0 && this.bars[i].time > time) i -= 1;
    this.trades += 1;
    const bar = this.bars[i];
    if (bar?.time === time) {
      bar.low = Math.min(bar.low, price);
      bar.high = Math.max(bar.high, price);
      if (timestamp >= bar.at) [bar.close, bar.at] = [price, timestamp];
      return;
    }
    if (i < 0 && this.bars.length >= MAX_BARS) return; // older than all that is kept
    this.bars.splice(i + 1, 0, { time, low: price, high: price, close: price, at: timestamp });
    if (this.bars.length > MAX_BARS) this.bars.shift();
  }

  /** The bars of the last seconds, as uPlot wants them: [times, closes, lows, highs]. */
  columns(windowS) {
    const bars = this.within(windowS);
    return [
      bars.map((bar) => bar.time),
      bars.map((bar) => bar.close),
      bars.map((bar) => bar.low),
      bars.map((bar) => bar.high),
    ];
  }

  /** Change of the price over the last seconds, as a share. */
  change(windowS) {
    const bars = this.within(windowS);
    return bars.length > 1 && bars[0].close > 0 ? this.last / bars[0].close - 1 : 0;
  }

  within(windowS) {
    if (!this.bars.length) return [];
    const from = this.bars[this.bars.length - 1].time - windowS;
    const first = this.bars.findIndex((bar) => bar.time >= from);
    return this.bars.slice(first);
  }
}
