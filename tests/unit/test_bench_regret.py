"""The bound holds on a recorded market too, with outcomes as late as they were."""

from __future__ import annotations

import pytest

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
