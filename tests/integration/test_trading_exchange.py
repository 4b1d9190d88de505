"""Trading at an exchange: a real node, ccxt, and a server on loopback that speaks Binance's API."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests

from ai_bridge.trading.settling import LOST_AFTER_S
from tests.exchange import KEY, SECRET, Exchange
from tests.integration.test_trading import ENV, TRADING, decide, entries, price, status, until
from tests.node_process import Api, NodeProcess, wait_for

pytest.importorskip("ccxt", reason="needs script/setup trading")
SYMBOL = "BTC/USDT"
Json = dict[str, Any]


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    with Exchange() as made:
        yield made


@pytest.fixture
def desk(tmp_path: Path, exchange: Exchange) -> Iterator[NodeProcess]:
    env = {
        **ENV,
        "CONTEXT_TRADING_EXCHANGE": "binance",
        "CONTEXT_TRADING_EXCHANGE_URL": exchange.url,
        "CONTEXT_TRADING_KEY": KEY,
        "CONTEXT_TRADING_SECRET": SECRET,
    }
    with NodeProcess(tmp_path / "data", None, "--id", "desk", env=env) as node:
        price(node.client, 100, symbol=SYMBOL)
        yield node


def begin(api: Api, **more: Any) -> Json:
    body = {"mode": "test", "symbols": [SYMBOL], "broker": "ccxt", **more}
    answer = api.post(f"{TRADING}/start", json=body, timeout=60)
    assert answer.status_code == 201, answer.text
    document: Json = answer.json()
    return document


def test_an_order_goes_to_the_sandbox_once_and_its_fill_comes_back(
    desk: NodeProcess, exchange: Exchange
) -> None:
    api = desk.client
    begun = begin(api)
    assert (begun["account"], begun["live"]) == ("sandbox:binance:USDT", False)
    decide(api, "buy", SYMBOL)
    shown = until(api, lambda s: s["fills"] == 1 and not s["open_orders"], "the fill")
    (sent,), (order,), (fill,) = exchange.received, entries(api, "order"), entries(api, "fill")
    assert sent["newClientOrderId"] == order["client_id"]
    assert (sent["type"], sent["timeInForce"]) == ("LIMIT", "IOC")
    assert Decimal(sent["price"]) <= Decimal(order["limit"])
    assert Decimal(sent["quantity"]) <= Decimal(order["qty"])
    (account,) = shown["accounts"]
    spent = Decimal(sent["quantity"]) * 100
    assert Decimal(fill["value"]) == spent
    assert Decimal(account["fees"]) == spent / 1000
    assert Decimal(account["cash"]) == 10_000 - spent - spent / 1000
    assert entries(api, "done")[0]["status"] == "filled"

    exchange.price = Decimal(200)  # beyond the limit: nothing is executed
    decide(api, "buy", SYMBOL)
    until(api, lambda s: s["orders"] == 2 and not s["open_orders"], "the end of the second")
    assert entries(api, "done")[1]["status"] == "cancelled"
    exchange.refuse = {
        "code": -2010,
        "msg": "Account has insufficient balance for requested action.",
    }
    decide(api, "sell", SYMBOL)
    until(api, lambda s: s["orders"] == 3 and not s["open_orders"], "the end of the third")
    refused = entries(api, "done")[2]
    assert refused["status"] == "rejected"
    assert "InsufficientFunds" in refused["detail"]
    assert len(entries(api, "fill")) == 1


def test_kill_9_while_an_order_is_on_its_way(desk: NodeProcess, exchange: Exchange) -> None:
    """It was executed, nobody heard of it, and it is neither sent again nor forgotten."""
    api = desk.client
    begin(api)
    for round_ in (1, 2):
        exchange.answering.clear()
        decide(api, "buy", SYMBOL)
        wait_for(lambda: len(exchange.received) == round_, "the order at the exchange")  # noqa: B023
        assert len(entries(api, "order")) == round_  # durable before it was sent
        assert len(entries(api, "fill")) == round_ - 1
        desk.kill9()
        exchange.answering.set()
        desk.start()
        until(api, lambda s: s["fills"] == round_ and not s["open_orders"], "its fill")  # noqa: B023
    ids = [sent["newClientOrderId"] for sent in exchange.received]
    assert ids == [each["client_id"] for each in entries(api, "order")]
    assert len(set(ids)) == 2
    bought = sum(Decimal(sent["quantity"]) for sent in exchange.received)
    assert Decimal(status(api)["accounts"][0]["positions"][0]["qty"]) == bought


@pytest.mark.slow
def test_kill_9_at_any_moment(desk: NodeProcess, exchange: Exchange) -> None:
    """Decisions without a pause, kills at random: what was ordered and what was executed agree."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance, api = random.Random(seed), desk.client
    begin(api)
    for _ in range(6):
        ended = threading.Event()

        def produce(ended: threading.Event = ended) -> None:
            own = Api(desk.url)
            while not ended.is_set():
                with suppress(requests.RequestException, AssertionError):
                    decide(own, "buy", SYMBOL)

        producer = threading.Thread(target=produce)
        producer.start()
        wait_for(lambda: exchange.received, "the first order", 30)
        time.sleep(chance.uniform(0.0, 0.5))
        desk.kill9()
        ended.set()
        producer.join()
        desk.start()
    until_settled = LOST_AFTER_S + 30
    wait_for(lambda: not status(api)["open_orders"], "the end of all orders", until_settled)
    sent = [each["newClientOrderId"] for each in exchange.received]
    orders = [each["client_id"] for each in entries(api, "order")]
    ends = {each["client_id"]: each["status"] for each in entries(api, "done")}
    assert len(set(sent)) == len(sent)  # none twice
    assert set(sent) <= set(orders)  # none without its intention
    assert set(ends) == set(orders)  # none forgotten
    assert {key for key in orders if ends[key] == "filled"} == set(sent)
    bought = sum(Decimal(order["executedQty"]) for order in exchange.orders.values())
    (account,) = status(api)["accounts"]
    assert Decimal(account["positions"][0]["qty"]) == bought
    print(f"{len(orders)} orders, {len(sent)} sent, {sorted(ends.values()).count('filled')} filled")


def test_the_emergency_stop_sends_nothing_more_to_an_exchange(
    desk: NodeProcess, exchange: Exchange
) -> None:
    api = desk.client
    begin(api)
    exchange.answering.clear()
    decide(api, "buy", SYMBOL)
    wait_for(lambda: exchange.received, "an order on its way")
    api.post("/api/control/emergency-stop")
    decide(api, "buy", SYMBOL)
    wait_for(lambda: not status(api)["trading"], "the halt", 1.0)
    exchange.answering.set()
    shown = until(api, lambda s: not s["open_orders"], "the first order's end")
    assert len(exchange.received) == 1
    assert shown["fills"] == 1  # what was executed is written down all the same


def test_real_money_needs_the_node_and_the_words(desk: NodeProcess, tmp_path: Path) -> None:
    body = {"mode": "test", "symbols": [SYMBOL], "broker": "ccxt", "live": True}
    words = "trade real money on binance"

    def refused(node: NodeProcess, **more: str) -> str:
        answer = node.client.post(f"{TRADING}/start", json=body | more)
        assert answer.status_code == 409
        return str(answer.json()["detail"])

    assert "--live-trading" in refused(desk, confirm=words)
    env = ENV | {"CONTEXT_TRADING_EXCHANGE": "binance"}
    args = ("--id", "live", "--live-trading")
    with NodeProcess(tmp_path / "live", None, *args, env=env) as node:
        assert words in refused(node)
        assert words in refused(node, confirm="yes")


def test_what_the_exchange_does_not_trade(desk: NodeProcess) -> None:
    body = {"mode": "test", "symbols": ["NO/USDT"], "broker": "ccxt"}
    answer = desk.client.post(f"{TRADING}/start", json=body, timeout=60)
    assert answer.status_code == 409
    assert "NO/USDT is no spot market of binance" in answer.json()["detail"]


def test_an_exchange_that_is_not_there(desk: NodeProcess, exchange: Exchange) -> None:
    exchange.__exit__()
    body = {"mode": "test", "symbols": [SYMBOL], "broker": "ccxt"}
    answer = desk.client.post(f"{TRADING}/start", json=body, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (503, "broker_unavailable")
    assert status(desk.client)["trading"] is False
