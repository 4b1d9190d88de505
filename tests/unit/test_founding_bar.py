"""What an operator sees while a founder brings its log into the cluster."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console

from server.agent.founding_bar import bringing


def test_a_terminal_shows_a_bar_that_fills() -> None:
    seen = io.StringIO()
    with bringing(2_000_000, Console(file=seen, force_terminal=True, width=120)) as told:
        told(1_000_000)
        told(2_000_000)
    assert "100%" in seen.getvalue()
    assert "2,000,000 items" in seen.getvalue()


def test_elsewhere_the_log_tells_each_percent_once(caplog: pytest.LogCaptureFixture) -> None:
    seen = io.StringIO()
    with caplog.at_level(logging.INFO), bringing(200, Console(file=seen)) as told:
        for items in range(1, 201):
            told(items)
    assert seen.getvalue() == ""
    told_percent = [record.__dict__["percent"] for record in caplog.records]
    assert told_percent == list(range(101))
