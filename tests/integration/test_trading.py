"""Trading on real nodes: from decisions to fills, across kill -9, stops and limits."""

from __future__ import annotations

import gzip
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ai_bridge.trading.book import Book
from ai_bridge.trading.entries import entry_of
from ai_bridge.trading.modes import MODES
from tests.integration.test_chain import verify
from tests.node_process import ROOT, Api, NodeProcess, wait_for

TRADING = "/api/context/trading"
SYMBOL = "BTC/USD"
RECORDED = ROOT / "../shared/data/normalized/trades_binance_BTCUSDT_20240808.ndjson.gz"
NDJSON = {"Content-Type": "application/x-ndjson"}
MODE = msgspec.to_builtins(MODES["high_volume"]) | {
    **{"ask_every_s": 0, "pause_s": 0, "ttl_s": 60, "price_age_s": 60, "min_confidence": 0.5},
    "decision_age_s": 60,
    **{"max_open_orders": 50, "max_orders_per_minute": 1000},
}
MODES_HERE = {
    "test": MODE,
    "slow": MODE | {"max_orders_per_minute": 3},
    "timid": MODE | {"max_daily_loss": 0.0005},
    "hasty": MODE | {"ttl_s": 0.3},
}
ENV = {
    "CONTEXT_MODEL_MODULES": "tests.obedient",
    "CONTEXT_MODELS": json.dumps({"obedient": {"kind": "custom", "model": "Obedient"}}),
    "CONTEXT_TRADING_MODES": json.dumps(MODES_HERE),
}
Json = dict[str, Any]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path / "data", None, "--id", "desk", env=ENV) as node:
        price(node.client, 100)
        yield node


def price(api: Api, *prices: float, symbol: str = SYMBOL) -> None:
    api.ingest(
        [{"type": "trading_data", "data": {"symbol": symbol, "price": each}} for each in prices]
    )


def decide(api: Api, say: str, symbol: str = SYMBOL) -> str:
    body = {"symbols": [symbol], "models": ["obedient"], "context": {"say": say}}
    answer = api.post("/api/context/ai/decide", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["final_decision"] == say
    return str(answer.json()["decision_id"])


def begin(api: Api, mode: str = "test", **more: Any) -> Json:
    answer = api.post(f"{TRADING}/start", json={"mode": mode, "symbols": [SYMBOL], **more})
    assert answer.status_code == 201, answer.text
    document: Json = answer.json()
    return document


def status(api: Api) -> Json:
    document: Json = api.get(TRADING).json()
    return document


def entries(api: Api, event: str | None = None) -> list[Json]:
    """What trading wrote, oldest first."""
    found = api.get(f"{TRADING}/entries?limit=10000").json()["entries"][::-1]
    return [each for each in found if event in (None, each["event"])]


def until(api: Api, condition: Callable[[Json], bool], what: str) -> Json:
    wait_for(lambda: condition(status(api)), what)
    return status(api)


def folded(api: Api) -> Book:
    """The book, from nothing but what the API tells of the log."""
    book = Book()
    for seq, data in enumerate(entries(api)):
        book.apply(entry_of({k: v for k, v in data.items() if k not in ("id", "chain")}), seq)
    return book


def test_a_decision_becomes_an_order_and_a_fill_that_refer_to_it(desk: NodeProcess) -> None:
    api = desk.client
    begun = begin(api)
    assert (begun["trading"], begun["mode"], begun["account"]) == (True, "test", "paper:USD")
    bought = decide(api, "buy")
    until(api, lambda s: len(s["open_orders"]) == 1, "an open order")
    price(api, 100.1, 100.2)
    shown = until(api, lambda s: s["fills"] == 1, "a fill")
    (order,), (fill,), (done,) = (entries(api, event) for event in ("order", "fill", "done"))
    assert order["decision_id"] == fill["decision_id"] == done["decision_id"] == bought
    assert order["client_id"] == fill["client_id"]
    assert done["status"] == "filled"
    item = api.get(f"/api/context/items/{fill['price_offset']}").json()
    assert item["data"] == {"symbol": SYMBOL, "price": 100.1}  # the first one after it
    assert Decimal(fill["price"]) > Decimal("100.1")
    assert Decimal(fill["price"]) <= Decimal(order["limit"])
    (account,), qty = shown["accounts"], Decimal(order["qty"])
    value, fee = Decimal(fill["value"]), Decimal(fill["fee"])
    assert Decimal(account["cash"]) == 10_000 - value - fee
    assert Decimal(account["positions"][0]["qty"]) == qty
    assert abs(Decimal(account["equity"]) - (10_000 - value - fee + qty * Decimal("100.2"))) < 1

    decide(api, "sell")
    until(api, lambda s: s["orders"] == 2, "the order to sell")
    price(api, 101)
    shown = until(api, lambda s: s["fills"] == 2, "the fill")
    (account,), (_, sold) = shown["accounts"], entries(api, "fill")
    assert account["positions"] == []
    assert Decimal(account["realised"]) == Decimal(sold["value"]) - value
    assert Decimal(account["profit"]) == Decimal(sold["value"]) - value - fee - Decimal(sold["fee"])
    exposed = api.get("/metrics").text
    assert 'context_trading{mode="test"} 1.0' in exposed
    assert "context_trading_orders_total 2.0" in exposed
    assert 'context_trading_money{account="paper:USD",of="equity"}' in exposed
    decide(api, "hold")
    until(api, lambda s: any("neither" in each["why"] for each in s["passes"]), "the hold passed")

    before = status(api)["accounts"]
    desk.kill9()
    desk.start()
    assert status(api)["accounts"] == before
    assert status(api)["trading"]
    assert folded(api).accounts["paper:USD"].cash == Decimal(before[0]["cash"])
    code, report = verify("--url", desk.url)
    assert (code, report["problems"]) == (0, [])
    assert report["entries"] >= len(entries(api))


def test_kill_9_between_intention_and_fill(desk: NodeProcess) -> None:
    """Whatever moment it strikes: each order once, each filled once, none forgotten."""
    api = desk.client
    begin(api)
    ids = []
    for _ in range(3):
        for _ in range(4):
            ids.append(decide(api, "buy"))
        desk.kill9()  # between decision, intention and the next price
        desk.start()
        until(api, lambda s: s["trading"] and s["orders"] == len(ids), "every fresh decision")
        price(api, 100.1)
        until(api, lambda s: s["fills"] == len(ids), "every fill")
        desk.kill9()
        desk.start()
    price(api, 100.2)
    shown = status(api)
    assert shown["open_orders"] == []
    for event in ("order", "fill", "done"):
        told = [each["decision_id"] for each in entries(api, event)]
        assert sorted(told) == sorted(ids)
    book = folded(api).accounts["paper:USD"]
    assert Decimal(shown["accounts"][0]["cash"]) == book.cash
    assert Decimal(shown["accounts"][0]["positions"][0]["qty"]) == book.positions[SYMBOL].qty


def test_the_emergency_stop_halts_within_a_second_and_stays(desk: NodeProcess) -> None:
    api, ended = desk.client, threading.Event()
    begin(api)

    def produce(symbol: str) -> None:
        own = Api(desk.url)
        while not ended.is_set():
            decide(own, "buy", symbol)

    producers = [threading.Thread(target=produce, args=(SYMBOL,)) for _ in range(2)]
    for each in producers:
        each.start()
    try:
        until(api, lambda s: len(s["open_orders"]) >= 5, "orders in flight")
        asked_at = time.time()
        stopped = api.post("/api/control/emergency-stop", json={"reason": "drill"}).json()
        answered_at = time.time()
        until(api, lambda s: not s["trading"] and not s["open_orders"], "the halt")
        halted_at = time.time()
        time_for_more = status(api)["orders"]
        for _ in range(3):
            decide(api, "buy")
    finally:
        ended.set()
        for each in producers:
            each.join()
    price(api, 100)
    last = max(each["at"] for each in entries(api, "order"))
    print(
        f"acknowledged after {answered_at - asked_at:.3f} s, last order "
        f"{last - asked_at:.3f} s and all cancelled {halted_at - asked_at:.3f} s after the call"
    )
    assert last <= answered_at
    assert halted_at - asked_at < 1
    assert stopped["emergency_stop"] is True
    assert status(api)["orders"] == time_for_more
    assert entries(api, "fill") == []
    assert {each["status"] for each in entries(api, "done")} <= {"cancelled", "withheld"}
    assert entries(api, "stop")[-1]["reason"] == "emergency_stop"

    for end in (NodeProcess.kill9, NodeProcess.stop):
        end(desk)
        desk.start()
        assert status(api)["emergency_stop"] is True
        refused = api.post(f"{TRADING}/start", json={"mode": "test", "symbols": [SYMBOL]})
        assert (refused.status_code, refused.json()["code"]) == (409, "trading_refused")
        decide(api, "buy")
    assert api.post("/api/control/resume").json()["emergency_stop"] is False
    decide(api, "buy")
    assert status(api)["trading"] is False  # only a person begins again
    assert status(api)["orders"] == time_for_more
    begin(api)
    decide(api, "buy")
    until(api, lambda s: s["orders"] == time_for_more + 1, "an order of the new session")


def test_a_stop_that_was_resumed_at_once_has_ended_the_session_all_the_same(
    desk: NodeProcess,
) -> None:
    api = desk.client
    api.post("/api/control/resume")  # nothing is stopped: that changes nothing
    begin(api)
    api.post("/api/control/resume")
    decide(api, "buy")
    until(api, lambda s: s["orders"] == 1, "an order")
    api.post("/api/control/emergency-stop")
    api.post("/api/control/resume")
    until(api, lambda s: not s["trading"] and not s["open_orders"], "the end of the session")
    assert entries(api, "stop")[-1]["reason"] == "emergency_stop"


def test_limits_hold_across_restarts(desk: NodeProcess) -> None:
    api = desk.client
    begin(api, "slow")
    for _ in range(2):
        decide(api, "buy")
    until(api, lambda s: s["orders"] == 2, "two orders")
    desk.kill9()
    desk.start()
    for _ in range(2):
        decide(api, "buy")
    until(api, lambda s: any("the limit is 3" in p["why"] for p in s["passes"]), "a refusal")
    assert status(api)["orders"] == 3


def test_a_loss_halts_trading_by_itself(desk: NodeProcess) -> None:
    api = desk.client
    begin(api, "timid")
    decide(api, "buy")
    until(api, lambda s: s["orders"] == 1, "an order")
    price(api, 100)
    until(api, lambda s: s["fills"] == 1, "a fill")
    price(api, 90)  # a tenth of 1% of the capital; the limit is half of that
    shown = until(api, lambda s: not s["trading"], "the halt")
    assert shown["last_stop"]["reason"] == "daily_loss"
    desk.kill9()
    desk.start()
    begin(api, "timid")
    until(api, lambda s: not s["trading"], "the same day's limit again")
    decide(api, "buy")
    assert status(api)["orders"] == 1


def test_what_expires_is_not_filled(desk: NodeProcess) -> None:
    api = desk.client
    begin(api, "hasty")
    decide(api, "buy")
    until(api, lambda s: s["orders"] == 1 and not s["open_orders"], "the end of the order")
    price(api, 100)
    assert entries(api, "done")[0]["status"] == "expired"
    assert entries(api, "fill") == []


def test_a_start_is_checked(desk: NodeProcess) -> None:
    api = desk.client

    def refused(**body: Any) -> tuple[int, str]:
        answer = api.post(f"{TRADING}/start", json={"mode": "test", **body})
        return answer.status_code, answer.json()["detail"]

    assert refused(mode="reckless")[0] == 400
    assert "conservative, balanced, high_volume" in refused(mode="reckless")[1]
    assert refused(symbols=["BTC/USD", "BTC/EUR"])[0] == 400
    assert refused(quote="JPY")[0] == 400  # no prices in it
    assert refused(broker="ccxt")[0] == 400  # no exchange is set
    assert refused(live=True)[0] == 400
    assert refused(unknown=1)[0] == 400
    assert begin(api, symbols=None)["symbols"] == [SYMBOL]  # what is traded lately
    code, detail = refused()
    assert code == 409
    assert "stop it first" in detail
    stopped = api.post(f"{TRADING}/stop").json()
    assert (stopped["trading"], stopped["last_stop"]["reason"]) == (False, "asked")
    assert api.post(f"{TRADING}/stop").status_code == 200
    modes = api.get(f"{TRADING}/modes").json()["modes"]
    assert set(modes) == set(MODES) | set(MODES_HERE)


def test_nobody_else_can_write_into_the_book(desk: NodeProcess) -> None:
    api = desk.client
    begin(api)
    decide(api, "buy")
    until(api, lambda s: s["orders"] == 1, "an order")
    price(api, 100)
    until(api, lambda s: s["fills"] == 1, "a fill")
    forged = {k: v for k, v in entries(api, "fill")[0].items() if k != "id"}
    stored = api.post("/api/context/ingest", json={"type": "ai_trade", "data": forged})
    assert stored.status_code == 422
    del forged["chain"]
    api.ingest({"type": "ai_trade", "data": forged})
    decision = {"decision": "buy", "model": "consensus", "final_decision": "buy"}
    api.ingest({"type": "ai_decision", "data": decision | {"symbols": [SYMBOL], "confidence": 1}})
    before = status(api)["accounts"]
    desk.kill9()
    desk.start()
    assert status(api)["accounts"] == before
    assert (status(api)["fills"], status(api)["orders"]) == (1, 1)


@pytest.mark.skipif(not RECORDED.exists(), reason="needs the recorded trades")
def test_recorded_prices_fill_orders_as_an_independent_reckoning_says(desk: NodeProcess) -> None:
    """Real trades, sent in their order; buys and sells between them; all of it reckoned anew."""
    api, symbol = desk.client, "BTC/USDT"
    lines = gzip.decompress(RECORDED.read_bytes()).splitlines()[:3000]
    begin(api, symbols=[symbol])
    for number, start in enumerate(range(0, len(lines), 300)):
        body = b"\n".join(lines[start : start + 150])
        api.post("/api/context/ingest", data=body, headers=NDJSON).raise_for_status()
        decide(api, "sell" if number % 3 == 2 else "buy", symbol)
        until(api, lambda s: s["orders"] == number + 1, "the order")  # noqa: B023
        body = b"\n".join(lines[start + 150 : start + 300])
        api.post("/api/context/ingest", data=body, headers=NDJSON).raise_for_status()
        until(api, lambda s: not s["open_orders"], "its end")
    cash, held, aside = Fraction(10_000), Fraction(0), Fraction(3, 10_000)
    fills = entries(api, "fill")
    assert len(fills) == 10
    for fill in fills:
        item = api.get(f"/api/context/items/{fill['price_offset']}").json()
        buys = fill["side"] == "buy"
        exact = Fraction(str(item["data"]["price"])) * (1 + aside if buys else 1 - aside)
        qty, value = Fraction(fill["qty"]), Fraction(fill["value"])
        assert abs(value - qty * exact) <= Fraction(1, 10**8)
        assert abs(Fraction(fill["price"]) - value / qty) <= Fraction(1, 10**12)
        assert abs(Fraction(fill["fee"]) - value / 1000) <= Fraction(1, 10**8)
        cash += (-value if buys else value) - Fraction(fill["fee"])
        held += qty if buys else -qty
    (account,) = status(api)["accounts"]
    assert Fraction(account["cash"]) == cash
    newest = Fraction(str(json.loads(lines[-1])["data"]["price"]))
    assert abs(Fraction(account["equity"]) - (cash + held * newest)) < Fraction(1, 10**6)


def test_the_models_are_asked_as_often_as_the_mode_says(desk: NodeProcess) -> None:
    api = desk.client
    prices = itertools.cycle((100.0, 100.5))
    price(api, *itertools.islice(prices, 300))
    begin(api, ask_every_s=0.05)
    decisions = "/api/context/ai/decisions"
    wait_for(lambda: len(api.get(decisions).json()["decisions"]) >= 3, "decisions")
    assert all(d["symbols"] == [SYMBOL] for d in api.get(decisions).json()["decisions"])
