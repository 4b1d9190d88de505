"""The Aggregating Algorithm against plain references: its bound, sleepers, late votes, the fold."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_bridge.backoff import LEAST_ROUNDS, WHOLE, Backoff, Mixing, predict
from ai_bridge.errors import InvalidRecord, InvalidRequest
from ai_bridge.experts import CONFIGURED, POT, UNIFORM, Rule, prior
from ai_bridge.ledger import Ledger
from ai_bridge.pace import LONG, Pace
from ai_bridge.portable import exp, ln
from ai_bridge.prediction import DECISIONS, Prediction
from ai_bridge.record import outcome_class, outcome_event
from ai_bridge.votes import Vote
from ai_bridge.weights import Level, brier, losses, mixed_loss, mixture, substitute

NAMES = ("a", "b", "c", "d")
Said = dict[str, dict[str, float]]
outcomes = st.sampled_from(DECISIONS)


def as_distribution(parts: list[int]) -> dict[str, float]:
    total = sum(parts)
    return {name: part / total for name, part in zip(DECISIONS, parts, strict=True)}


distributions = (
    st.lists(st.integers(0, 100), min_size=3, max_size=3).filter(any).map(as_distribution)
)
sayings = st.dictionaries(st.sampled_from(NAMES), distributions, min_size=1)
rounds = st.lists(st.tuples(sayings, outcomes), max_size=30)
shares_of = st.lists(st.floats(0.001, 1), min_size=4, max_size=4)


# --- numbers ---


@given(st.floats(-690, 20))
def test_exp_is_the_exponential(x: float) -> None:
    with localcontext() as exact:
        exact.prec = 40
        true = Decimal(x).exp()
        assert abs(Decimal(exp(x)) - true) <= 2 * Decimal(math.ulp(float(true)))


@given(st.floats(1e-300, 1e300))
def test_ln_is_the_logarithm(x: float) -> None:
    with localcontext() as exact:
        exact.prec = 40
        true = Decimal(x).ln()
        assert abs(Decimal(ln(x)) - true) <= 2 * Decimal(math.ulp(float(true)))


def test_their_bits_are_the_same_everywhere() -> None:
    assert exp(-1.2345).hex() == "0x1.29f6b7bfe469dp-2"
    assert ln(0.1234).hex() == "-0x1.0bd147400b759p+1"


@given(distributions, outcomes)
def test_brier_is_the_squared_distance(said: dict[str, float], outcome: str) -> None:
    exact = sum((Fraction(p) - (name == outcome)) ** 2 for name, p in said.items())
    assert brier(said, outcome) == pytest.approx(float(exact))
    assert 0 <= brier(said, outcome) <= 2


# --- the prediction ---


def mixed(said: Said, shares: Mapping[str, float], rate: float = 1.0) -> dict[str, float]:
    return substitute(mixture(shares, {name: losses(each) for name, each in said.items()}, rate))


@given(sayings, shares_of, st.sampled_from([1.0, 0.5, 2.0**-9]))
def test_the_prediction_loses_at_most_the_mixed_loss_whatever_comes(
    said: Said, parts: list[float], rate: float
) -> None:
    raw = dict(zip(NAMES, parts, strict=True))
    total = sum(raw[name] for name in said)
    shares = {name: raw[name] / total for name in said}
    predicted = Prediction(mixed(said, shares, rate)).distribution
    for outcome in DECISIONS:
        lost = {name: brier(each, outcome) for name, each in said.items()}
        assert brier(predicted, outcome) <= mixed_loss(shares, lost, rate) + 1e-9


@given(sayings, shares_of, st.randoms(use_true_random=False))
def test_the_order_of_experts_and_decisions_changes_no_bit(
    said: Said, parts: list[float], shuffler: Any
) -> None:
    shares = dict(zip(NAMES, parts, strict=True))
    names = list(said)
    shuffler.shuffle(names)
    turned = {name: dict(reversed(said[name].items())) for name in names}
    assert mixed(turned, shares) == mixed(said, shares)
    one, other = Level(prior), Level(prior)
    lost = {name: brier(said[name], "buy") for name in said}
    assert one.learn(lost) == other.learn({name: lost[name] for name in names})
    assert one.weights == other.weights


def test_who_agrees_is_followed_exactly() -> None:
    said = as_distribution([3, 2, 2])
    whole, symbol = Backoff(prior).mixings("X", ["a", "b"])
    assert predict({"a": said, "b": dict(said)}, whole, symbol)[0] == said


def test_records_of_older_versions_mix_the_whole_into_the_symbol() -> None:
    """Mixtures of mixtures, by fractions of one rate: computed here with plain exp and ln."""
    said = {"a": as_distribution([6, 3, 1]), "b": as_distribution([1, 1, 8])}
    whole = Mixing(shares={"a": 0.75, "b": 0.25}, rate=1.0, outcomes=9)
    symbol = Mixing(shares={WHOLE: 0.5, "a": 0.1, "b": 0.4}, rate=1.0, outcomes=4)
    distribution, shares = predict(said, whole, symbol)
    assert shares == pytest.approx({"a": 0.475, "b": 0.525})
    assert distribution == pytest.approx(mixed(said, shares))


# --- the bound, against a reference that knows nothing of shares or levels ---


def reference(played: Sequence[tuple[Said, str]]) -> tuple[list[float], dict[str, float]]:
    """Losses of the textbook algorithm, experts all awake: weights are exp(-total loss).

    The prediction is searched for by halving, not computed by sorting.
    """
    totals = dict.fromkeys(played[0][0], 0.0)
    lost = []
    for said, outcome in played:
        weights = {name: math.exp(-total) for name, total in totals.items()}
        whole = sum(weights.values())
        mixed = {
            o: -math.log(sum(w * math.exp(-brier(said[n], o)) for n, w in weights.items()) / whole)
            for o in DECISIONS
        }
        low, high = 0.0, 10.0
        for _ in range(200):
            middle = (low + high) / 2
            fits = sum(max(0.0, middle - each) for each in mixed.values()) < 2
            low, high = (middle, high) if fits else (low, middle)
        predicted = {o: max(0.0, low - each) / 2 for o, each in mixed.items()}
        lost.append(brier(predicted, outcome))
        for name in totals:
            totals[name] += brier(said[name], outcome)
    return lost, totals


awake = st.lists(
    st.tuples(
        st.fixed_dictionaries(dict.fromkeys(NAMES, distributions)),
        outcomes,
    ),
    min_size=1,
    max_size=25,
)


@given(awake)
def test_one_level_is_the_textbook_algorithm_and_keeps_its_bound(
    played: list[tuple[Said, str]],
) -> None:
    level, lost = Level(lambda name: 1.0), []
    for said, outcome in played:
        lost.append(brier(mixed(said, level.shares(said)), outcome))
        level.learn({name: brier(each, outcome) for name, each in said.items()})
    expected, totals = reference(played)
    assert lost == pytest.approx(expected, abs=1e-7)
    assert sum(lost) <= min(totals.values()) + math.log(len(NAMES)) + 1e-6
    assert level.bound("a") == pytest.approx(math.log(len(NAMES)))
    assert level.free == pytest.approx(0, abs=1e-9)  # it was not told what was gained


symbols = st.sampled_from(["X", "Y", "Z"])


def vote(name: str, said: dict[str, float], latency_ms: float = 1.0) -> dict[str, Any]:
    shown = Prediction(said)
    ok = Vote(
        model=name,
        status="ok",
        decision=shown.decision,
        confidence=shown.confidence,
        distribution=said,
        latency_ms=latency_ms,
    )
    return ok.as_dict()


def decision(
    ledger: Ledger, number: int, said: Mapping[str, dict[str, float]], **more: Any
) -> dict[str, Any]:
    """A record as the bridge makes it, with the ledger's weights of now."""
    symbols = more.pop("symbols", ["X"])
    configured = more.pop("configured", {"a": 3.0, "b": 1.0, "c": 0.5, "d": 1.0})
    rule: Rule = more.pop("rule", "learned")
    votes = [ledger.calibrated(Vote(**vote(name, each))) for name, each in said.items()]
    pooled = ledger.pooled(votes, configured, symbols, rule)
    own = {v.model: v.distribution or {} for v in votes}
    own |= {f"{v.model}|calibrated": v.calibrated for v in votes if v.calibrated is not None}
    for name, weights in ((CONFIGURED, configured), (UNIFORM, dict.fromkeys(NAMES, 1.0))):
        total = sum(weights[each] for each in said)
        own[name] = {
            o: sum(weights[n] * each[o] for n, each in said.items()) / total for o in DECISIONS
        }
    assert pooled.whole
    assert pooled.symbol
    learned, _ = predict(own, pooled.whole, pooled.symbol)
    return {
        "decision_id": f"d{number}",
        "final_decision": "hold",
        "symbols": symbols,
        "votes": [each.as_dict() for each in votes],
        "distribution": own[CONFIGURED] if rule == "static" else learned,
        "pool": msgspec.to_builtins(pooled),
        **more,
    }


@given(st.lists(st.tuples(sayings, outcomes, symbols), min_size=1, max_size=40))
def test_regret_stays_below_its_bound_with_sleepers_on_every_symbol_and_over_all(
    played: list[tuple[Said, str, str]],
) -> None:
    """The losses are summed up here, apart from the ledger's own books."""
    ledger = Ledger()
    ours: dict[tuple[str, str], float] = {}
    for number, (said, outcome, symbol) in enumerate(played):
        record = decision(ledger, number, said, symbols=[symbol])
        ledger.apply(record, outcome)
        for name, each in said.items():
            gap = brier(record["distribution"], outcome) - brier(each, outcome)
            ours[name, symbol] = ours.get((name, symbol), 0.0) + gap
    regrets = ledger.regrets
    assert regrets.all.delay_cost == 0
    assert regrets.report()["bound"]["kind"] == "undelayed"
    for (name, symbol), regret in ours.items():
        told = regrets.report(symbol)["models"][name]
        assert told["regret"] == pytest.approx(regret, abs=1e-9)
        assert regret <= told["bound"] + 1e-9
    names, total = {name for name, _ in ours}, regrets.report()
    limit = math.log(len(names) + 2)
    for over_all in (*(total["models"][name] for name in names), total["configured"]):
        assert over_all["bound"] == pytest.approx(limit, abs=1e-12)
        assert over_all["regret"] <= limit + 1e-9
    assert total["uniform"]["regret"] <= total["uniform"]["bound"] + 1e-9
    assert total["uniform"]["bound"] == pytest.approx(limit + math.log(2))


@given(
    st.lists(st.tuples(sayings, outcomes, symbols, st.integers(0, 9)), min_size=1, max_size=40),
    st.randoms(use_true_random=False),
    st.sampled_from(["learned", "static"]),
)
def test_with_delay_and_late_votes_regret_stays_below_the_measured_bound(
    played: list[tuple[Said, str, str, int]], chance: Any, rule: Rule
) -> None:
    ledger, waiting = Ledger(), list[tuple[int, dict[str, Any], str]]()
    for number, (said, outcome, symbol, delay) in enumerate(played):
        for due in sorted((w for w in waiting if w[0] <= number), key=lambda w: chance.random()):
            ledger.apply(due[1], due[2])
        waiting = [each for each in waiting if each[0] > number]
        late = {name: said[name] for name in list(said)[1:] if chance.random() < 0.3}
        voted = {name: each for name, each in said.items() if name not in late}
        record = decision(ledger, number, voted, symbols=[symbol], rule=rule, deadline_ms=100.0)
        record["late_votes"] = [vote(n, each, chance.uniform(50, 500)) for n, each in late.items()]
        waiting.append((number + delay, record, outcome))
    for _, record, outcome in waiting:
        ledger.apply(record, outcome)
    for symbol in (None, *ledger.regrets.symbols):
        report = ledger.regrets.report(symbol)
        for told in (*report["models"].values(), report["configured"], report["uniform"]):
            assert told["regret"] <= told["bound"] + 1e-9


def test_with_delay_the_undelayed_bound_does_not_hold_and_the_measured_one_does() -> None:
    """The first D + 1 decisions know nothing: each may cost as much as the first."""
    delay, count = 9, 40
    up, down = as_distribution([1, 0, 0]), as_distribution([0, 1, 0])
    ledger, records = Ledger(), list[tuple[dict[str, Any], str]]()
    for number in range(count):
        if number > delay:
            ledger.apply(*records[number - delay - 1])
        records.append((decision(ledger, number, {"a": up, "b": down}), "buy"))
    for record, outcome in records[-delay - 1 :]:
        ledger.apply(record, outcome)
    report = ledger.regrets.report()
    assert report["regret"] > math.log(4) + 1
    assert report["regret"] <= report["bound"]["value"]
    assert report["bound"]["kind"] == "delayed"
    assert report["bound"]["most_delay"] == delay


def test_the_pace_follows_the_usual_delay_and_no_single_one() -> None:
    pace = Pace()
    for _ in range(500):
        pace.note(0)
    pace.note(100_000)
    assert pace.rate == 1
    for number in range(60):
        pace.note(min(number, 17))
    assert pace.rate == 1 / 18
    for _ in range(3 * LONG):
        pace.note(1)
    assert 1 / 4 <= pace.rate <= 1 / 2


@pytest.mark.parametrize("seed", range(3))
def test_the_measured_bound_holds_while_the_pace_falls_and_rises(seed: int) -> None:
    chance = random.Random(seed)
    ledger, waiting = Ledger(), list[tuple[dict[str, Any], str]]()
    for number in range(1200):
        said = {n: as_distribution([chance.randint(1, 9) for _ in range(3)])
                for n in NAMES if chance.random() < 0.8}  # fmt: skip
        said.setdefault("a", as_distribution([6, 2, 2]))
        outcome = chance.choices(DECISIONS, [2, 1, 1])[0]
        waiting.append((decision(ledger, number, said, symbols=[chance.choice("XY")]), outcome))
        while len(waiting) > (12 if number < 300 else 0):
            ledger.apply(*waiting.pop(0))
        if number == 299:
            assert ledger.weights.whole.pace.together == 13
    assert ledger.weights.whole.pace.together == 1
    for symbol in (None, "X", "Y"):
        report = ledger.regrets.report(symbol)
        for told in (*report["models"].values(), report["configured"], report["uniform"]):
            assert told["regret"] <= told["bound"] + 1e-9


# --- sleepers, late votes, symbols ---


@given(rounds)
def test_weights_follow_from_the_losses_of_all_rounds(played: list[tuple[Said, str]]) -> None:
    """Reference: keep log weights, and shift the awake so that their summed weight is unchanged."""
    logs = dict.fromkeys(NAMES, 0.0)
    level = Level(lambda name: 1.0)
    for votes, outcome in played:
        level.learn({name: brier(said, outcome) for name, said in votes.items()})
        awake = {n: logs[n] - sum((p - (o == outcome)) ** 2 for o, p in v.items())
                 for n, v in votes.items()}  # fmt: skip
        shift = math.log(
            sum(math.exp(logs[n]) for n in votes) / sum(math.exp(each) for each in awake.values())
        )
        logs |= {name: each + shift for name, each in awake.items()}
    for name, weight in level.weights.items():
        assert weight == pytest.approx(math.exp(logs[name]), rel=1e-6, abs=2e-12)


def test_nothing_is_learned_about_sleepers_and_shadows() -> None:
    ledger = Ledger()
    right, wrong = as_distribution([90, 5, 5]), as_distribution([5, 90, 5])
    record = decision(ledger, 1, {"a": right, "b": wrong})
    record["votes"] += [
        {"model": "c", "status": "abstained"},
        {"model": "d", "status": "timeout"},
        {"model": "e", "status": "error"},
        vote("shadow", wrong),  # of configured weight 0
    ]
    record["pool"]["configured"]["shadow"] = 0.0
    ledger.apply(record, "buy")
    assert [ledger.weight(name) for name in ("c", "d", "e", "shadow")] == [1.0] * 4
    assert set(ledger.weights.symbols["X"].weights) == {"a", "b", CONFIGURED, UNIFORM}
    assert ledger.weight("a") > 1 > ledger.weight("b")
    assert ledger.scores["shadow"].count == 1  # it is judged all the same


def test_a_late_vote_trains_by_its_importance() -> None:
    learned = []
    for latency_ms in (100.0, 200.0, 1000.0, math.inf):
        ledger = Ledger()
        record = decision(ledger, 1, {"a": as_distribution([1, 1, 1])}, deadline_ms=100.0)
        record["late_votes"] = [vote("b", as_distribution([98, 1, 1]), min(latency_ms, 1e12))]
        ledger.apply(record, "buy")
        learned.append(ledger.weights.whole.weight("b"))
        whole = ledger.weights.whole
        assert whole.mass == 4
        assert math.fsum(whole.weights.values()) <= 4
    assert learned == sorted(learned, reverse=True)
    assert learned[0] > 1.5
    assert learned[-1] == pytest.approx(1, abs=1e-6)


def test_a_symbol_leans_on_all_until_it_knows_better() -> None:
    weights = Backoff(prior, POT)
    awake = ["a", "b", CONFIGURED, UNIFORM]
    good = {"a": 0.1, "b": 1.5, CONFIGURED: 0.8, UNIFORM: 0.8}
    for _ in range(2 * LEAST_ROUNDS):
        weights.learn("X", good, {})
    assert weights.shares("new", awake)["a"] > 0.8
    assert weights.leaning("new") > 0.8
    bad = {"a": 1.5, "b": 0.1, CONFIGURED: 0.8, UNIFORM: 0.8}
    seen = []
    for _ in range(2 * LEAST_ROUNDS):
        weights.learn("Y", bad, {})
        seen.append(weights.shares("Y", awake)["b"])
    assert seen[0] < 0.01
    assert seen == pytest.approx(sorted(seen))
    assert seen[-1] > 0.9
    assert weights.whole.shares(awake)["b"] > 0.9
    for _ in range(5):  # the others were wrong about it, and its own weights were kept
        weights.learn("X", good, {})
    assert weights.shares("X", awake)["a"] > 0.8
    assert weights.leaning("X") < 0.2


# --- the ledger ---


def state_of(ledger: Ledger) -> str:
    """Everything it knows, every bit of it."""
    return json.dumps(
        {
            "whole": ledger.weights.whole.weights,
            "symbols": {name: each.weights for name, each in ledger.weights.symbols.items()},
            "regret": ledger.regrets.report() if ledger.outcomes else None,
            "calibration": {n: each.as_dict() for n, each in ledger.calibrations.items()},
            "coverage": ledger.conformal.as_list(),
        },
        sort_keys=True,
    )


@given(st.lists(st.tuples(sayings, outcomes, symbols), max_size=40))
def test_folding_the_stored_events_gives_the_same_bits_and_each_counts_once(
    played: list[tuple[Said, str, str]],
) -> None:
    once, repeated = Ledger(), Ledger()
    for number, (said, outcome, symbol) in enumerate(played):
        record = decision(once, number, said, symbols=[symbol])
        stored = json.loads(json.dumps(outcome_event(record, {"outcome": outcome})))
        once.apply(record, outcome)
        repeated.apply(stored, stored["outcome"])
        repeated.apply(stored, "buy")
    assert state_of(repeated) == state_of(once)


def test_events_of_older_versions_are_learned_from() -> None:
    ledger, said = Ledger(), as_distribution([8, 1, 1])
    cast = vote("a", said) | {"weight": 1.0}
    del cast["calibrated"]
    event = {
        "decision_id": "old",
        "final_decision": "buy",
        "symbols": ["X"],
        "decisions": list(DECISIONS),
        "votes": [cast, {"model": "b", "status": "timeout"}],
        "late_votes": [vote("b", said)],
    }
    ledger.apply(event, "sell")
    held = {name for name, weight in ledger.weights.whole.weights.items() if weight}
    assert held == {"a", "b", CONFIGURED, UNIFORM}
    assert ledger.regrets.all.loss == pytest.approx(brier(said, "sell"))


def test_scores_and_refusals_of_the_ledger() -> None:
    ledger = Ledger()
    ledger.apply(decision(ledger, 1, {"a": as_distribution([1, 1, 1])}), "buy")
    assert ledger.scores["a"].mean == pytest.approx(2 / 3)
    assert ledger.outcome_of("d1") == "buy"
    assert ledger.weight("a") == ledger.weight("never seen") == pytest.approx(1)
    with pytest.raises(InvalidRecord, match="'up'"):
        ledger.apply(decision(ledger, 2, {"a": as_distribution([1, 1, 1])}), "up")
    with pytest.raises(InvalidRecord, match="None"):
        ledger.apply({"votes": []}, "buy")
    with pytest.raises(InvalidRecord, match="pool"):
        ledger.apply({"decision_id": "d", "votes": [], "pool": 7}, "buy")


@pytest.mark.parametrize(
    ("payload", "right"),
    [
        ({"outcome": "sell"}, "sell"),
        ({"return": 0.0031}, "buy"),
        ({"return": -0.0031}, "sell"),
        ({"return": 0.0005}, "hold"),
        ({"return": 0}, "hold"),
    ],
)
def test_outcomes_become_classes(payload: dict[str, object], right: str) -> None:
    assert outcome_class(payload, {}) == right


def test_the_dead_band_of_the_record_decides() -> None:
    assert outcome_class({"return": 0.003}, {"dead_band": 0.01}) == "hold"


@pytest.mark.parametrize(
    "payload",
    [{}, {"outcome": "up"}, {"outcome": ["buy"]}, {"return": math.nan}, {"return": True},
     {"return": "1"}, {"outcome": "buy", "return": 1}, {"why": 1}],
)  # fmt: skip
def test_bad_outcomes_are_refused(payload: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match="got"):
        outcome_class(payload, {})
