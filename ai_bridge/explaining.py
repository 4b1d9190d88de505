"""A stored decision told in sentences: asked, answered, tipped by, turned out, and vouched for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ai_bridge.weights import brier

Json = Mapping[str, Any]


def explanation(
    record: Json, impacts: Sequence[Json], outcome: Json | None, *, whole: bool | None
) -> str:
    """Paragraphs about one decision of the consensus.

    Parameters
    ----------
    record : the decision, with `late_votes` where there are any
    impacts : of `ai_bridge.impact`
    outcome : the outcome event, or None while nobody knows
    whole : whether its bytes are as they were written; None for one outside of the chain
    """
    parts = [
        _question(record),
        str(record.get("reasoning", "")),
        " ".join(_covered(record)),
        " ".join(_tipped(impacts)),
        " ".join(_late(record)),
        " ".join(_turned_out(record, outcome)),
        " ".join(_vouched(record, whole)),
    ]
    return "\n".join(part for part in parts if part)


def _question(record: Json) -> str:
    at = datetime.fromtimestamp(float(record.get("asked_at", 0)), UTC)
    symbols = ", ".join(record.get("symbols", [])) or "nothing in particular"
    choices = ", ".join(record.get("decisions", []))
    seen = ", ".join(
        f"{symbol} at {known['price']:g}" for symbol, known in record.get("reference", {}).items()
    )
    context = record.get("context_id") or "no packed context"
    known = f" {seen}." if seen else ""
    return (
        f"Asked {at:%Y-%m-%d %H:%M:%S} UTC about {symbols}: {choices}? "
        f"The models saw {context}.{known}"
    )


def _covered(record: Json) -> Iterator[str]:
    cover, maybe = record.get("coverage"), record.get("prediction_set")
    if not cover or not maybe:
        return
    said = f"With {cover['target']:.0%} coverage what turns out right is {' or '.join(maybe)}"
    yield f"{said}: so it abstained." if record.get("abstained") else f"{said}."


def _tipped(impacts: Sequence[Json]) -> Iterator[str]:
    tipping = [each for each in impacts if each["changed"]]
    for each in tipping:
        instead = each["final_decision"]
        if instead is None:
            yield f"{each['model']} decided alone."
        else:
            yield f"Without {each['model']} it would have been {instead}."
    if impacts and not tipping:
        most = impacts[0]
        yield (
            "No single model tipped it: without any one of them it would have been the same; "
            f"{most['model']} moved it most, by {most['shift']:.0%}."
        )


def _late(record: Json) -> Iterator[str]:
    for vote in record.get("late_votes", []):
        yield f"{vote['model']} answered too late: {vote.get('decision')}."


def _turned_out(record: Json, outcome: Json | None) -> Iterator[str]:
    if outcome is None:
        yield "How it turned out is not known yet."
        return
    right = outcome["outcome"]
    loss = brier(record["distribution"], right)
    verdict = "right" if right == record["final_decision"] else "wrong"
    gain = f" (return {outcome['return']:+.4%})" if "return" in outcome else ""
    yield f"{right} turned out right{gain}: the decision was {verdict}, Brier loss {loss:.2f}."
    before, after = outcome.get("weights_before", {}), outcome.get("weights_after", {})
    moved = [f"{name} {before[name]:.3f} to {after[name]:.3f}" for name in after if name in before]
    if moved:
        yield f"Learned weights went from {', '.join(moved)}."


def _vouched(record: Json, whole: bool | None) -> Iterator[str]:
    link = record.get("chain")
    if whole is None or not link:
        yield "It is not part of this log's chain, so nothing vouches for it."
        return
    state = "its bytes are as they were written" if whole else "ITS BYTES WERE CHANGED SINCE"
    yield f"Entry {link['seq']} of the chain; {state}."
    if record.get("code"):
        yield f"Decided by code {str(record['code'])[:12]}."
