"""Regret of the consensus beside the bound that applies, who did how, and what it covers.

    python -m bench.regret [--data ../shared/data] [--limit 1000] [--plot regret.svg] [--json]
                           [--river PYTHON]   # of an environment with river 0.26

First the streams of `bench.undelayed`, where each outcome is known before the next question, with
all votes and with 30% of them missing, beside ln(N + 2). Then recorded markets that are asked more
often than they are judged: with outcomes as late as they were, as if each were known at once, and
with D + 1 sets of weights that take turns (whose bound, (D + 1) times the logarithm, holds in
advance). Beside the consensus stand each model alone, equal weights and static ones; where it loses
to one of them, the line says so. What is not there is skipped.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ai_bridge.bridge import Bridge
from ai_bridge.chart import plot
from ai_bridge.consensus import pool
from ai_bridge.experts import is_calibrated
from ai_bridge.history import History
from ai_bridge.ledger import Ledger
from ai_bridge.models.builtin import builtin_models
from ai_bridge.ports import Question
from ai_bridge.record import decision_record
from ai_bridge.votes import Vote
from ai_bridge.weights import brier
from bench import undelayed
from bench.undelayed import DEFAULT_DATA, MISSING, markets, river

TARGETS = (0.9, 0.6)


@dataclass(frozen=True, slots=True)
class Market:
    """A recorded file, how often to ask, when the price judges, and below what it is hold."""

    file: str
    every_s: float
    horizon_s: float
    band: float


MARKETS = (
    Market("trades_binance_BTCUSDT_20240808", 0.3, 5.0, 0.0001),
    Market("trades_coinbase_BTCUSD_20230905", 3.0, 30.0, 0.0002),
    Market("trades_SPY_20131007", 10.0, 60.0, 0.0001),
    Market("candles1m_coinbase_BTC_ETH_LTC_BTCEUR_20180404_05", 480.0, 900.0, 0.001),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of the past, the models' votes, and what came of it."""

    question: Question
    votes: list[Vote]
    at: float
    outcome: str
    known_at: float


def questions(path: Path, market: Market, limit: int) -> list[Asked]:
    """Ask the built-in models as of then, in the order of the recording."""
    with gzip.open(path) as file:
        items = [(n, json.loads(line)) for n, line in enumerate(file)]
    found: list[tuple[int, History]] = []
    for symbol in sorted({item["data"]["symbol"] for _, item in items}):
        history = History(symbol, items)
        ticks = np.floor(np.maximum.accumulate(history.times()) / market.every_s)
        firsts = np.flatnonzero(ticks[1:] > ticks[:-1]) + 1
        found += [(int(history.offsets[at]), history) for at in firsts]
    found.sort(key=lambda each: each[0])
    return asyncio.run(_answers(found[30:][-limit:], market))


async def _answers(found: Sequence[tuple[int, History]], market: Market) -> list[Asked]:
    bridge, asked = Bridge(builtin_models()), list[Asked]()
    for offset, history in found:
        window, turned = history.window(offset), history.after(offset, market.horizon_s)
        if turned is None:
            continue
        at = float(window.timestamps[-1])
        question = Question((history.symbol,), {history.symbol: window}, now=at)
        votes = [await bridge.ask(name, question, clock=time.monotonic) for name in bridge.names()]
        if not any(vote.status == "ok" for vote in votes):
            continue
        gain = turned.gain
        outcome = "buy" if gain > market.band else "sell" if gain < -market.band else "hold"
        light = Question((history.symbol,), {}, now=at)
        asked.append(Asked(light, votes, at, outcome, turned.known_at))
    return asked


@dataclass(slots=True)
class Played:
    """One run: the ledgers that took turns, regret as it went, and seconds spent."""

    ledgers: list[Ledger]
    regret: list[tuple[float, float]]
    deciding_s: float = 0.0
    learning_s: float = 0.0


def play(asked: Sequence[Asked], known: Callable[[Asked], float], *, turns: int = 1) -> Played:
    """Decide in order; each outcome teaches before the first decision after it was known."""
    run = Played([Ledger() for _ in range(turns)], [])
    waiting: list[tuple[float, int, dict[str, Any], str]] = []

    def learn(now: float) -> None:
        due = sorted(each for each in waiting if each[0] <= now)
        waiting[:] = [each for each in waiting if each[0] > now]
        for _, number, record, outcome in due:
            started = time.process_time()
            run.ledgers[number % turns].apply(record, outcome)
            run.learning_s += time.process_time() - started
            if turns == 1:
                run.regret.append((float(number), run.ledgers[0].regrets.report()["regret"] or 0.0))

    for number, each in enumerate(asked):
        learn(each.at)
        started = time.process_time()
        record = _decided(run.ledgers[number % turns], each, number)
        run.deciding_s += time.process_time() - started
        waiting.append((known(each), number, record, each.outcome))
    learn(math.inf)
    return run


def _decided(ledger: Ledger, each: Asked, number: int) -> dict[str, Any]:
    """A decision as the bridge takes it; the coverage stated alternates."""
    votes = [ledger.calibrated(vote) for vote in each.votes]
    configured = dict.fromkeys((vote.model for vote in votes), 1.0)
    pooled = ledger.pooled(votes, configured, each.question.symbols, "learned")
    return decision_record(
        each.question,
        pool(votes, pooled),
        votes,
        decision_id=f"d{number}",
        context_id=None,
        term=0,
        pooled=pooled,
        cover=ledger.conformal.cover(TARGETS[number % len(TARGETS)]),
    )


def figures(asked: Sequence[Asked], market: Market) -> tuple[dict[str, Any], Played]:
    """All runs over one market."""
    late, known = play(asked, lambda each: each.known_at), play(asked, lambda each: each.at)
    [ledger] = late.ledgers
    total = ledger.regrets.report()
    turns = total["bound"]["most_delay"] + 1
    apart = play(asked, lambda each: each.known_at, turns=turns)
    losses = sum(each.regrets.all.loss for each in apart.ledgers)
    models = {name: each for name, each in total["models"].items() if not is_calibrated(name)}
    count, best = len(asked), models[total["best_model"]]
    conformal = {
        f"{each['target']:g}": {
            name: each[name] for name in ("judged", "coverage", "acted", "right_when_acting")
        }
        for each in ledger.conformal.as_list()
    }
    told = {
        "market": market.file,
        "decisions": count,
        "symbols": len(ledger.regrets.symbols),
        "loss": total["loss"] / count,
        "know_nothing": sum(brier(dict.fromkeys(("buy", "sell", "hold"), 1 / 3), each.outcome)
                            for each in asked) / count,
        "best_model": total["best_model"],
        "best_loss": best["loss"] / best["outcomes"],
        "configured_loss": total["configured"]["loss"] / count,
        "delayed": {"regret": total["regret"], "to_configured": total["configured"]["regret"],
                    **total["bound"]},
        "undelayed": _undelayed(known.ledgers[0]),
        "taking_turns": {"sets": turns, "loss": losses / count,
                         "bound": turns * math.log(len(models) + 2)},
        "voices": {
            name: {"loss": each["loss"] / each["outcomes"], "regret": each["regret"]}
            for name, each in {**models, "uniform": total["uniform"]}.items()
        },
        "coverage": conformal,
        "calibration_error": {
            name: {"said": each.said.error, "calibrated": each.scaled.error}
            for name, each in ledger.calibrations.items()
        },
        "us_per_decision": 1e6 * late.deciding_s / count,
        "us_per_outcome": 1e6 * late.learning_s / count,
    }  # fmt: skip
    return told, late


def _undelayed(ledger: Ledger) -> dict[str, Any]:
    told = ledger.regrets.report()
    return {"regret": told["regret"], "to_configured": told["configured"]["regret"],
            "loss": told["loss"] / told["outcomes"], **told["bound"]}  # fmt: skip


def shown(told: dict[str, Any]) -> str:
    """One market's figures as lines of text."""
    late, known, apart = told["delayed"], told["undelayed"], told["taking_turns"]
    rows = [
        f"{told['market']}: {told['decisions']} decisions, {told['symbols']} symbol(s)",
        f"  mean Brier  consensus {told['loss']:.4f}, best model ({told['best_model']}) "
        f"{told['best_loss']:.4f}, configured {told['configured_loss']:.4f}, "
        f"knowing nothing {told['know_nothing']:.4f}",
        f"  as late     regret {late['regret']:8.2f} <= {late['value']:.2f} "
        f"(delay {late['delay']:.2f}, D {late['most_delay']}); "
        f"to the configured weights {late['to_configured']:.2f}",
        f"  at once     regret {known['regret']:8.2f} <= {known['value']:.2f} ({known['kind']}); "
        f"mean Brier {known['loss']:.4f}",
        f"  {apart['sets']} sets     mean Brier {apart['loss']:.4f}, bound {apart['bound']:.1f}",
        f"  cost        {told['us_per_decision']:.0f} us a decision, "
        f"{told['us_per_outcome']:.0f} us an outcome",
    ]
    for name, each in told["voices"].items():
        lost = each["regret"]
        rows.append(
            f"    {name:14} Brier {each['loss']:.4f}"
            + (f"  the consensus lost to it by {lost:.2f}" if lost > 0 else "")
        )
    for target, each in told["coverage"].items():
        right = each["right_when_acting"]
        rows.append(
            f"  coverage    {each['coverage']:.3f} of {target} stated; acts on {each['acted']:.1%}"
            + ("" if right is None else f", right {right:.1%}")
        )
    for name, each in told["calibration_error"].items():
        rows.append(
            f"  calibration {name}: error {each['said']:.3f}, {each['calibrated']:.3f} after"
        )
    return "\n".join(rows)


def _undelayed_streams(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Play and print them."""
    results: list[dict[str, Any]] = []
    for source in (river(args.river) if args.river else (), markets(args.data, args.limit)):
        for stream in source:
            for missing in MISSING:
                results.append(undelayed.play(stream, missing))
                if not args.json:
                    print(undelayed.shown(results[-1]), flush=True)
    if not args.json:
        good = sum(map(undelayed.kept, results))
        print(f"regret at most ln(N+2): {good} of {len(results)} streams, at every moment of each")
        verdicts = [verdict for each in results if (verdict := undelayed.covered(each))]
        for verdict in undelayed.Covered:
            print(f"coverage {verdict.value}: {verdicts.count(verdict)} of {len(verdicts)} streams")
    return results


def main() -> None:
    """Entry of the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--river", metavar="PYTHON", default="")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    results, panels = _undelayed_streams(args), []
    for market in MARKETS:
        path = args.data / "normalized" / f"{market.file}.ndjson.gz"
        if not path.exists():
            continue
        told, run = figures(questions(path, market, args.limit), market)
        results.append(told)
        panels.append((f"{market.file}: regret against the best model", run.regret))
        if not args.json:
            print(shown(told), flush=True)
    if not results and not args.json:
        print(f"skipped: no recorded markets in {args.data}")
    if args.json:
        print(msgspec.json.encode(results).decode())
    if args.plot and panels:
        args.plot.write_text(plot("regret, by decision", panels), encoding="utf-8")


if __name__ == "__main__":
    main()
