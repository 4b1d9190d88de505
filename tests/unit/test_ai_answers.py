"""Reading what a language model wrote: what is a vote, and what is wrong with the rest."""

from __future__ import annotations

import json
import math
import time

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_bridge.answers import from_mapping, parse_answer, schema
from ai_bridge.errors import InvalidPrediction
from ai_bridge.prediction import DECISIONS

WHOLE = (
    '{"reasoning": "it  rises\\n", "decision": "buy", "confidence": 0.6, '
    '"distribution": {"buy": 0.6, "sell": 0.1, "hold": 0.3}}'
)


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        f"\n  {WHOLE}\n",
        f"```json\n{WHOLE}\n```",
        f"```\n{WHOLE}\n```",
        f'<think>buy? {{"decision": "sell"}}\nyes</think>\n{WHOLE}',
    ],
)
def test_one_object_is_a_vote(text: str) -> None:
    vote = parse_answer(text, DECISIONS)
    assert vote.distribution == {"buy": 0.6, "sell": 0.1, "hold": 0.3}
    assert vote.reasoning == "it rises"


def test_without_a_distribution_the_rest_is_shared() -> None:
    vote = parse_answer('{"decision": "hold", "confidence": 0.5}', DECISIONS)
    assert vote.distribution == {"hold": 0.5, "buy": 0.25, "sell": 0.25}
    unsure = parse_answer('{"decision": "hold", "confidence": 0.33}', DECISIONS)
    assert unsure.decision == "hold"
    assert unsure.confidence == pytest.approx(1 / 3)
    own = parse_answer('{"decision": "wait", "confidence": 1}', ("go", "wait"))
    assert own.distribution == {"go": 0, "wait": 1}


def test_rounded_shares_are_made_a_distribution() -> None:
    thirds = {"buy": 0.33, "sell": 0.33, "hold": 0.33}
    vote = from_mapping({"decision": "sell", "confidence": 0.33, "distribution": thirds}, DECISIONS)
    assert math.fsum(vote.distribution.values()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not the JSON object asked for"),
        ("I would buy.", "not the JSON object asked for"),
        (f"Sure! {WHOLE}", "not the JSON object asked for"),
        (f"{WHOLE} {WHOLE}", "not the JSON object asked for"),
        (WHOLE[:-2], "not the JSON object asked for"),
        (f"[{WHOLE}]", "not the JSON object asked for"),
        ('{"decision": "buy"}', "confidence"),
        ('{"decision": "buy", "confidence": "0.6"}', "confidence"),
        ('{"decision": "buy", "confidence": true}', "confidence"),
        ('{"decision": "buy", "confidence": 60}', "<= 1"),
        ('{"decision": "buy", "confidence": NaN}', "not the JSON object asked for"),
        ('{"decision": "up", "confidence": 0.6}', "'up' is not one of buy, sell, hold"),
        ('{"decision": "buy", "confidence": 0.2}', "contradicts the decision"),
        ('{"decision": "buy", "confidence": 0.6, "extra": 1}', "extra"),
        (
            '{"decision": "buy", "confidence": 0.6, "distribution": {"buy": 0.6, "sell": 0.4}}',
            "not ['buy', 'hold', 'sell']",
        ),
        (
            '{"decision": "buy", "confidence": 0.6, '
            '"distribution": {"buy": 0.6, "sell": 0.3, "hold": 0.3}}',
            "sums to 1.2",
        ),
        (
            '{"decision": "buy", "confidence": 0.3, '
            '"distribution": {"buy": 0.3, "sell": 0.1, "hold": 0.6}}',
            "not the most probable",
        ),
        (
            '{"decision": "buy", "confidence": 0.9, '
            '"distribution": {"buy": 0.6, "sell": 0.1, "hold": 0.3}}',
            "is not the probability 0.6",
        ),
        ("[" * 100_000, "not the JSON object asked for"),
        ('{"decision": "\ud800", "confidence": 1}', "not the JSON object asked for"),
    ],
)
def test_anything_else_is_refused_with_its_reason(text: str, problem: str) -> None:
    with pytest.raises(InvalidPrediction) as refused:
        parse_answer(text, DECISIONS)
    assert problem in refused.value.detail


@given(st.text() | st.dictionaries(st.text(), st.none() | st.floats() | st.text()).map(json.dumps))
def test_whatever_is_written_is_a_vote_or_refused(text: str) -> None:
    try:
        vote = parse_answer(text, DECISIONS)
    except InvalidPrediction:
        return
    assert math.fsum(vote.distribution.values()) == pytest.approx(1)


@pytest.mark.parametrize("begin", ["", "```", "```json\n", "<think>", "</think>", "`", " {"])
@pytest.mark.parametrize("filler", ["\n", " ", "`", "```\n", "<think>", "\n ```", "{", '"'])
def test_reading_takes_time_in_proportion_to_the_length(begin: str, filler: str) -> None:
    """A server may send a megabyte of anything, and the agent's event loop reads it."""
    whole = begin + filler * (1_000_000 // len(filler)) + "x"
    started = time.process_time()
    with pytest.raises(InvalidPrediction):
        parse_answer(whole, DECISIONS)
    assert time.process_time() - started < 1


def test_the_schema_describes_what_is_read() -> None:
    validator = jsonschema_rs.validator_for(schema(DECISIONS))
    assert validator.is_valid(json.loads(WHOLE))
    assert not validator.is_valid({"decision": "up"})
