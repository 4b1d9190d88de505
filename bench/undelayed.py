"""Streams of which each outcome is known before the next question, and who did how on them.

Recorded markets, symbol by symbol: where will the price be at the end of the next interval, at
several horizons, asked of six honest models; a third of the outcomes is `hold`. With river 0.26 its
bundled streams too, with river's own classifiers. `bench.regret` plays them.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import random
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from ai_bridge.bridge import Bridge
from ai_bridge.conformal import Conformal, prediction_set
from ai_bridge.consensus import pool
from ai_bridge.history import History
from ai_bridge.ledger import Ledger
from ai_bridge.models.builtin import builtin_models
from ai_bridge.ports import Question
from ai_bridge.record import decision_record
from ai_bridge.votes import Vote
from ai_bridge.weights import brier
from bench.honest import BaseRates, Counting, LastMove, LastOutcome

DEFAULT_DATA = Path(__file__).resolve().parents[1] / "../shared/data"
TARGET = 0.9
MISSING = (0.0, 0.3)
LEAST_ROUNDS = 100
TELLING_ROUNDS = 400
POINT = 0.01
HORIZONS_S = {
    "trades_binance_BTCUSDT_20240808": (0.3, 1.0, 5.0),
    "ticks_binancefutures_BTCUSDT_20240808": (0.3, 1.0, 5.0),
    "trades_coinbase_BTCUSD_20230905": (3.0, 10.0, 30.0),
    "trades_SPY_20131007": (10.0, 30.0, 60.0),
    "candles1s_coinbase_BTCUSD_20161007": (30.0, 120.0),
    "candles1m_coinbase_BTC_ETH_LTC_BTCEUR_20180404_05": (60.0, 300.0, 900.0),
}
Said = dict[str, float]


@dataclass(frozen=True, slots=True)
class Round:
    """What each model said (None: it abstained), and what came."""

    said: Mapping[str, Said | None]
    outcome: str


@dataclass(frozen=True, slots=True)
class Stream:
    """Rounds in order, and what is chosen from."""

    name: str
    choices: tuple[str, ...]
    rounds: Sequence[Round]


@dataclass(slots=True)
class Judged:
    """How one voice did over the rounds it took part in."""

    rounds: int = 0
    loss: float = 0.0
    right: int = 0
    conformal: Conformal = field(default_factory=Conformal)
    sure: list[tuple[float, bool]] = field(default_factory=list)  # how sure, and whether right

    def add(self, said: Mapping[str, float], outcome: str) -> None:
        """Count one round, and what a set of 90% coverage would have been."""
        self.rounds += 1
        self.loss += brier(said, outcome)
        likely = max(said, key=said.__getitem__)
        self.right += likely == outcome
        self.sure.append((said[likely], likely == outcome))
        cover = self.conformal.cover(TARGET)
        given = (TARGET, prediction_set(said, cover.threshold)) if cover else None
        self.conformal.learn(said, outcome, at=float(self.rounds), given=given)

    @property
    def could_act(self) -> float:
        """On what share it could have acted and been right in 90% of it, seen from the end."""
        most = right = 0
        for count, (_, was_right) in enumerate(sorted(self.sure, reverse=True), 1):
            right += was_right
            most = count if right >= TARGET * count else most
        return most / max(1, self.rounds)

    def as_dict(self) -> dict[str, Any]:
        """Means, and coverage with how often it acted."""
        stated = self.conformal.as_list()
        shown = ("judged", "coverage", "level", "acted", "right_when_acting")
        return {
            "rounds": self.rounds,
            "brier": self.loss / self.rounds,
            "accuracy": self.right / self.rounds,
            "could_act": self.could_act,
            **{name: stated[0][name] if stated else None for name in shown},
        }


def play(stream: Stream, missing: float) -> dict[str, Any]:
    """All figures of one stream, with a part of the votes missing."""
    chance, ledger = random.Random(f"{stream.name} {missing}"), Ledger()
    names = list(stream.rounds[0].said)
    configured = {name: float(len(names) - n) for n, name in enumerate(names)}
    judged = {who: Judged() for who in ("consensus", *names, "uniform", "static")}
    most = -math.inf
    for number, each in enumerate(stream.rounds):
        here = {n: s for n, s in each.said.items() if s and chance.random() >= missing}
        if not here:
            continue
        record = _decided(ledger, here, configured, stream, number)
        voices = {"consensus": record["distribution"], **here}
        voices["uniform"] = _mean(here, dict.fromkeys(here, 1.0))
        voices["static"] = _mean(here, configured)
        for who, said in voices.items():
            judged[who].add(said, each.outcome)
        ledger.apply(record, each.outcome)
        most = max(most, *(tally.regret for name, tally in ledger.regrets.all.tallies.items()
                           if name in configured))  # fmt: skip
    told = ledger.regrets.report()
    taking_part = [name for name in names if judged[name].rounds]
    return {
        "stream": stream.name,
        "missing": missing,
        "rounds": judged["consensus"].rounds,
        "models": len(taking_part),
        "regret": told["regret"],
        "best_model": told["best_model"],
        "highest_regret": most,
        "to_configured": told["configured"]["regret"],
        "bound": told["bound"]["value"],
        "limit": math.log(len(taking_part) + 2),
        "voices": {
            who: {**judged[who].as_dict(), "regret": regret}
            for who, regret in _regrets(told, judged)
        },
    }


def _regrets(told: Mapping[str, Any], judged: Mapping[str, Judged]) -> list[tuple[str, float]]:
    """How much more than each voice the consensus lost over its rounds."""
    known = {**told["models"], "uniform": told["uniform"], "static": told["configured"]}
    return [
        (who, known[who]["regret"] if who in known else 0.0) for who in judged if judged[who].rounds
    ]


def _decided(
    ledger: Ledger, said: Mapping[str, Said], configured: dict[str, float], stream: Stream, at: int
) -> dict[str, Any]:
    votes = [
        ledger.calibrated(Vote(model=name, status="ok", distribution=each))
        for name, each in said.items()
    ]
    pooled = ledger.pooled(votes, configured, ["all"], "learned")
    return decision_record(
        Question(("all",), {}, now=float(at), decisions=stream.choices),
        pool(votes, pooled),
        votes,
        decision_id=f"d{at}",
        context_id=None,
        term=0,
        pooled=pooled,
        cover=None,
    )


def _mean(said: Mapping[str, Said], weights: Mapping[str, float]) -> Said:
    total = sum(weights[name] for name in said)
    return {
        o: sum(weights[name] * each[o] for name, each in said.items()) / total
        for o in next(iter(said.values()))
    }


def river(python: str) -> Iterator[Stream]:
    """The streams of an environment with river."""
    script = Path(__file__).with_name("river_votes.py")
    told = subprocess.run([python, str(script)], capture_output=True, text=True, check=True).stdout
    rounds: dict[str, list[dict[str, Any]]] = {}
    for line in told.splitlines():
        each = json.loads(line)
        rounds.setdefault(each["stream"], []).append(each)
    for name, found in rounds.items():
        played = [Round(each["votes"], each["outcome"]) for each in found]
        yield Stream(name, tuple(found[0]["classes"]), played)


def markets(data: Path, limit: int) -> Iterator[Stream]:
    """Every symbol of every recording that is there, at each horizon."""
    for name, horizons in HORIZONS_S.items():
        path = data / "normalized" / f"{name}.ndjson.gz"
        if not path.exists():
            continue
        with gzip.open(path) as file:
            items = [(n, json.loads(line)) for n, line in enumerate(file)]
        for symbol in sorted({item["data"]["symbol"] for _, item in items}):
            history = History(symbol, items)
            for horizon_s in horizons:
                rounds = asyncio.run(_asked(history, horizon_s, limit))
                if len(rounds) >= LEAST_ROUNDS:
                    title = f"{name} {symbol}, next {horizon_s:g} s"
                    yield Stream(title, ("buy", "sell", "hold"), rounds)


async def _asked(history: History, horizon_s: float, limit: int) -> list[Round]:
    """Questions one after the other, each after the outcome of the one before."""
    at = _moments(history, horizon_s, limit)
    turned = [history.after(offset, horizon_s) for offset in at]
    gains = [abs(each.gain) for each in turned if each]
    band = float(np.quantile(gains, 1 / 3)) if gains else 0.0
    bridge = Bridge(builtin_models())
    counting: dict[str, Counting] = {
        "base_rates": BaseRates(),
        "last_outcome": LastOutcome(),
        "last_move": LastMove(),
    }
    rounds = []
    for offset, came in zip(at, turned, strict=True):
        if came is None:
            continue
        window = history.window(offset)
        question = Question(
            (history.symbol,), {history.symbol: window}, now=float(window.timestamps[-1])
        )
        votes = [await bridge.ask(name, question, clock=time.monotonic) for name in bridge.names()]
        said: dict[str, Said | None] = {
            vote.model: vote.distribution if vote.status == "ok" else None for vote in votes
        }
        said |= {name: each.say(window) for name, each in counting.items()}
        outcome = "buy" if came.gain > band else "sell" if came.gain < -band else "hold"
        for each in counting.values():
            each.learn(outcome)
        rounds.append(Round(said, outcome))
    return rounds


def _moments(history: History, horizon_s: float, limit: int) -> list[int]:
    """Offsets to ask at: the next once the price at the horizon of the one before is there."""
    times, offsets = np.maximum.accumulate(history.times()), history.offsets
    found, place = list[int](), 30
    while place < len(times) and len(found) < limit:
        found.append(int(offsets[place]))
        place = max(place + 1, int(np.searchsorted(times, times[place] + horizon_s)))
    return found


class Covered(Enum):
    """How near the stated coverage came to the target."""

    WITHIN = "within a point of what was asked for"
    ONE_IS_ENOUGH = "above it: sets have come down to one decision, more often right than asked"
    OFF = "OFF"


def covered(told: Mapping[str, Any]) -> Covered | None:
    """The consensus's verdict; None where too few rounds were judged to tell a point."""
    each = told["voices"]["consensus"]
    if each["rounds"] < TELLING_ROUNDS:
        return None
    if abs(each["coverage"] - TARGET) <= POINT:
        return Covered.WITHIN
    alone = each["coverage"] > TARGET and each["level"] >= 1
    return Covered.ONE_IS_ENOUGH if alone else Covered.OFF


def kept(told: Mapping[str, Any]) -> bool:
    """Whether regret was at most ln(N + 2) at every moment."""
    return bool(told["highest_regret"] <= told["limit"] + 1e-9)


def shown(told: Mapping[str, Any]) -> str:
    """One stream's figures as lines of text."""
    verdict = "kept" if kept(told) else "EXCEEDED"
    lines = [
        f"{told['stream']}, {told['missing']:.0%} of votes missing: {told['rounds']} rounds",
        f"  regret {told['regret']:.2f} to {told['best_model']} (highest on the way "
        f"{told['highest_regret']:.2f}), to static {told['to_configured']:.2f}; "
        f"ln(N+2) = {told['limit']:.2f} {verdict}",
    ]
    for who, each in told["voices"].items():
        lines.append(f"    {who:14} {_voice(each)}")
    return "\n".join(lines)


def _voice(each: Mapping[str, Any]) -> str:
    line = f"Brier {each['brier']:.4f}  right {each['accuracy']:.3f}"
    if each["acted"] is not None:
        right = each["right_when_acting"]
        line += f"  covers {each['coverage']:.3f}, acts on {each['acted']:6.1%}"
        line += f" (right {'  -  ' if right is None else f'{right:5.1%}'}"
        line += f", at best {each['could_act']:.1%})"
    lost = each["regret"]
    return line + (f"  the consensus lost to it by {lost:.2f}" if lost > 0 else "")
