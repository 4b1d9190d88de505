"""The bound holds on a recorded market too, with outcomes as late as they were."""

from __future__ import annotations

import pytest

from bench import undelayed
from bench.regret import DEFAULT_DATA, MARKETS, Market, figures, questions, shown

NORMALIZED = DEFAULT_DATA / "normalized"


@pytest.mark.skipif(not NORMALIZED.exists(), reason="recorded data is not here")
@pytest.mark.parametrize("market", MARKETS[1:], ids=lambda market: market.file)
def test_regret_stays_below_its_bound_on_recorded_markets(market: Market) -> None:
    asked = questions(NORMALIZED / f"{market.file}.ndjson.gz", market, 120)
    told, run = figures(asked, market)
    assert told["decisions"] > 100
    for each in (told["delayed"], told["undelayed"]):
        assert each["regret"] <= each["value"]
    assert told["undelayed"]["kind"] == "undelayed"
    assert told["delayed"]["most_delay"] > 0
    assert len(run.regret) == told["decisions"]
    assert market.file in shown(told)


@pytest.mark.skipif(not NORMALIZED.exists(), reason="recorded data is not here")
@pytest.mark.parametrize("missing", undelayed.MISSING)
def test_next_interval_regret_stays_below_ln_of_n_plus_2(
    missing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "trades_coinbase_BTCUSD_20230905"
    monkeypatch.setattr(undelayed, "HORIZONS_S", {name: (3.0, 10.0)})
    streams = list(undelayed.markets(DEFAULT_DATA, 300))
    assert len(streams) == 2
    for stream in streams:
        told = undelayed.play(stream, missing)
        assert told["models"] >= 5
        assert undelayed.kept(told)
        assert told["bound"] == pytest.approx(told["limit"])
        assert set(told["voices"]) >= {"consensus", "momentum", "uniform", "static"}
        assert stream.name in undelayed.shown(told)
