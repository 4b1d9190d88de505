"""The connectors against recorded sessions: every trade once, in order, exact."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context.errors import InvalidRequest
from context.feeds import CONNECTORS, FeedError, FeedSpec, parse_spec
from context.feeds.binance import Binance
from context.feeds.coinbase import Coinbase
from context.feeds.kraken import Kraken
from context.feeds.simulated import Market
from context.feeds.trade import RECENT_IDS, Connector, RecentIds

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="recorded sessions are not here")

Message = tuple[float, str]


def read(path: Path) -> str:
    raw = path.read_bytes()
    return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()


def cryptofeed(name: str) -> list[Message]:
    """Received messages of `<recv ts>: <native JSON>` files; header and sent lines left out."""
    found = re.findall(r"^(\d+\.\d+): (.*)$", read(DATA / "cryptofeed/sample_data" / name), re.M)
    return [(float(ts), message) for ts, message in found]


def hftbacktest(market: str) -> list[Message]:
    text = read(DATA / f"hftbacktest/examples/{market}/btcusdt_20240808.gz")
    pairs = (line.split(" ", 1) for line in text.splitlines())
    return [(int(ns) / 1e9, message) for ns, message in pairs]


def normalized(name: str) -> Iterator[dict[str, Any]]:
    for line in read(DATA / "normalized" / name).splitlines():
        item = json.loads(line)
        if item["data"]["kind"] == "trade":
            yield item


def play(connector: Connector, messages: list[Message]) -> list[dict[str, Any]]:
    return [item for ts, message in messages for item in connector.parse(message, ts)]


def facts(items: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    fields = ("symbol", "price", "volume", "side", "exchange_ts", "trade_id")
    return [tuple(item["data"].get(field) for field in fields) for item in items]


@needs_data
@pytest.mark.parametrize(
    ("market", "name", "count"),
    [
        ("spot", "trades_binance_BTCUSDT_20240808.ndjson.gz", 9757),
        ("usdm", "ticks_binancefutures_BTCUSDT_20240808.ndjson.gz", 21313),
    ],
)
def test_binance_trades_equal_the_normalized_file(market: str, name: str, count: int) -> None:
    items = play(Binance(["BTC/USDT"]), hftbacktest(market))
    expected = list(normalized(name))
    assert len(items) == len(expected) == count
    assert facts(items) == facts(expected)
    for item, other in zip(items, expected, strict=True):
        assert item["timestamp"] == other["timestamp"]
        assert abs(item["data"]["recv_ts"] - other["data"]["recv_ts"]) < 1e-6
        assert list(item["data"]) == list(other["data"])


@needs_data
def test_binance_aggregate_trades() -> None:
    messages = cryptofeed("BINANCE.ws.1.0")
    events = [json.loads(m)["data"] for _, m in messages if '"e":"aggTrade"' in m]
    items = play(Binance([]), messages)
    assert [item["data"]["symbol"] for item in items] == ["NKN/USDT", "LRC/BTC"]
    assert [item["data"]["trade_id"] for item in items] == [event["a"] for event in events]
    assert [item["data"]["price"] for item in items] == [0.3528, 0.00000638]
    assert all(item["data"]["aggregate"] for item in items)


@needs_data
def test_kraken_protocol_1_trades() -> None:
    messages = cryptofeed("KRAKEN.ws.48.0")
    expected = []
    for _, message in messages:
        parsed = json.loads(message)
        if isinstance(parsed, list):
            for price, volume, time, side, _, _ in parsed[1]:
                taker = {"b": "buy", "s": "sell"}[side]
                pair = parsed[3].replace("XBT", "BTC")
                expected.append((pair, float(price), float(volume), taker, float(time), None))
    items = play(Kraken([]), messages)
    assert len(items) == 10
    assert facts(items) == expected


@needs_data
@pytest.mark.parametrize("name", ["KRAKEN.ws.49.0", "KRAKEN.ws.50.0.gz"])
def test_kraken_tickers_and_books_are_not_trades(name: str) -> None:
    messages = cryptofeed(name)
    assert len(messages) > 50
    assert play(Kraken([]), messages) == []


@needs_data
def test_coinbase_matches() -> None:
    messages = cryptofeed("COINBASE.ws.28.0.gz")
    expected = {}
    for _, message in messages:
        match = json.loads(message)
        if match["type"] in ("match", "last_match"):
            expected[match["product_id"], match["trade_id"]] = (
                match["product_id"].replace("-", "/"),
                float(match["price"]),
                float(match["size"]),
                "buy" if match["side"] == "sell" else "sell",
                datetime.fromisoformat(match["time"]).timestamp(),
                match["trade_id"],
            )
    items = play(Coinbase([]), messages)
    assert len(items) == 107  # 97 matches, and the last one before of each of 10 products
    assert facts(items) == list(expected.values())


@needs_data
@pytest.mark.parametrize(
    ("connector", "messages"),
    [(Coinbase([]), "COINBASE.ws.28.0.gz"), (Binance([]), "BINANCE.ws.1.0")],
)
def test_a_repeated_session_adds_nothing(connector: Connector, messages: str) -> None:
    session = cryptofeed(messages)
    assert play(connector, session)
    assert play(connector, session) == []


# As in Kraken's documentation of protocol 2; no recording of it is at hand.
KRAKEN_2 = """{"channel":"trade","type":"%s","data":[
{"symbol":"BTC/USD","side":"sell","price":95001.1,"qty":0.5,"ord_type":"market","trade_id":%d,
 "timestamp":"2024-11-20T10:00:01.123456Z"},
{"symbol":"BTC/USD","side":"buy","price":95000,"qty":1e-5,"ord_type":"limit","trade_id":%d,
 "timestamp":"2024-11-20T10:00:01.123456789Z"}]}"""


def test_kraken_protocol_2_orders_a_snapshot_and_drops_repeats() -> None:
    kraken = Kraken(["BTC/USD"])
    items = kraken.parse(KRAKEN_2 % ("snapshot", 8, 7), 5.0)
    at = datetime(2024, 11, 20, 10, 0, 1, 123456, UTC).timestamp()
    assert facts(items)[1] == ("BTC/USD", 95001.1, 0.5, "sell", at, 8)
    assert [item["data"]["trade_id"] for item in items] == [7, 8]
    assert [i["data"]["trade_id"] for i in kraken.parse(KRAKEN_2 % ("update", 8, 9), 6.0)] == [9]
    assert kraken.parse('{"channel":"heartbeat"}', 6.0) == []
    assert kraken.parse('{"method":"pong","success":true}', 6.0) == []


def test_requests_name_every_symbol() -> None:
    symbols = ["BTC/USDT", "ETH/USDT"]
    assert Binance(symbols).url().endswith("/stream?streams=btcusdt@trade/ethusdt@trade")
    assert json.loads(Kraken(symbols).subscriptions()[0])["params"]["symbol"] == symbols
    asked = json.loads(Coinbase(symbols).subscriptions()[0])
    assert asked["product_ids"] == ["BTC-USDT", "ETH-USDT"]


TRADE = {"e": "trade", "s": "BTCUSDT", "t": 1, "p": "1.5", "q": "2", "T": 1000, "m": True}


@pytest.mark.parametrize(
    ("exchange", "message", "named"),
    [
        ("binance", "{", "truncated"),
        ("binance", b"\xff{}", "malformed|UTF-8"),
        ("binance", "[" * 100_000, "recursion"),
        ("binance", "7", "expected an object"),
        ("binance", '{"error":{"code":2,"msg":"Invalid symbol"}}', "Invalid symbol"),
        ("binance", json.dumps(TRADE | {"p": "NaN"}), r"\$.p"),
        ("binance", json.dumps(TRADE | {"p": "-1"}), r"\$.p"),
        ("binance", json.dumps(TRADE | {"T": None}), r"\$.T"),
        ("binance", json.dumps(TRADE | {"s": "ABCXYZ"}), "ABCXYZ"),
        ("kraken", '[1,[["1","1","1","x","l",""]],"trade","XBT/USD"]', r"\$\[0\]\[3\]|\$\[...\]"),
        ("kraken", '[1,[["1","1","9e40","b","l",""]],"trade","XBT/USD"]', "no time"),
        ("kraken", '{"channel":"trade","data":[{}]}', "symbol"),
        ("kraken", '{"method":"subscribe","success":false,"error":"no pair X/Y"}', "no pair X/Y"),
        ("coinbase", '{"type":"match"}', "trade_id"),
        ("coinbase", '{"type":"error","message":"bad","reason":"X-Y is delisted"}', "delisted"),
        ("coinbase", "[]", "type"),
    ],
)
def test_malformed_messages_are_named(exchange: str, message: str | bytes, named: str) -> None:
    with pytest.raises(FeedError, match=named) as caught:
        CONNECTORS[exchange](["BTC/USDT"]).parse(message, 0.0)
    assert exchange in caught.value.detail
    assert caught.value.retryable


@given(
    exchange=st.sampled_from(sorted(CONNECTORS)),
    message=st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["type", "e", "channel", "data", "s", "p", "error", "success"]),
                inner,
            )
        ),
    ).map(json.dumps),
)
def test_no_message_breaks_a_connector(exchange: str, message: str | bytes) -> None:
    with suppress(FeedError):
        assert CONNECTORS[exchange]([]).parse(message, 0.0) == []


def test_recent_ids_forget_only_the_oldest() -> None:
    ids = RecentIds()
    assert all(ids.add(number) for number in range(RECENT_IDS))
    assert ids.add(-1)  # a late one is new, and pushes 0 out
    assert not ids.add(1)
    assert ids.add(0)


def test_specifications() -> None:
    assert parse_spec("binance:btc/usdt, ETH/USDT,BTC/USDT") == FeedSpec(
        "binance", ("BTC/USDT", "ETH/USDT")
    )
    assert str(parse_spec("Simulated")) == "simulated:BTC/USD,ETH/USD,SOL/USD"
    assert parse_spec("simulated:DOGE/USD").symbols == ("DOGE/USD",)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "binance, coinbase, kraken, simulated"),
        ("nasdaq:BTC/USD", "'nasdaq' is not one of binance"),
        ("kraken", "names no symbol"),
        ("kraken:", "names no symbol"),
        ("kraken:BTCUSD", "'BTCUSD' is not BASE/QUOTE"),
        ("kraken:BTC/USD,", "'' is not BASE/QUOTE"),
        ("kraken:" + ",".join(f"A{i}/USD" for i in range(201)), "at most 200"),
    ],
)
def test_wrong_specifications_say_what_is_allowed(text: str, named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        parse_spec(text)


def simulate(seed: int, seconds: int) -> list[dict[str, Any]]:
    start = 1_790_000_000.0
    market = Market(["BTC/USD", "ETH/USD"], Random(seed), start)
    return [t for i in range(1, seconds * 10 + 1) for t in market.trades(start + i / 10)]


def test_simulated_market_is_plausible_and_says_what_it_is() -> None:
    items = simulate(seed=1, seconds=3600)
    assert 70_000 < len(items) < 74_000  # 20 a second
    assert items == simulate(seed=1, seconds=3600)
    times = [item["timestamp"] for item in items]
    assert times == sorted(times)
    assert len({item["data"]["trade_id"] for item in items}) == len(items)
    assert all(i["data"]["simulated"] and i["source"] == "simulated" for i in items)
    prices = [i["data"]["price"] for i in items if i["data"]["symbol"] == "BTC/USD"]
    assert 40_000 < min(prices) < max(prices) < 90_000
    assert max(prices) / min(prices) > 1.001
    assert all(i["data"]["volume"] >= 0 for i in items)


def test_simulated_market_leaves_a_hole_where_the_clock_jumped() -> None:
    market = Market(["BTC/USD"], Random(2), 1000.0)
    assert list(market.trades(1005.0))
    assert list(market.trades(90_000.0)) == []
    assert list(market.trades(500.0)) == []
    assert all(500 < item["timestamp"] <= 505 for item in market.trades(505.0))
