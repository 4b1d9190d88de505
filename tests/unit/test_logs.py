"""Log lines: one JSON object each, with the request's id and the fields passed along."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from server import logs

log = logging.getLogger("server.test")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    logging.captureWarnings(False)


def test_a_line_is_json_with_the_fields_and_the_request() -> None:
    stream = io.StringIO()
    logs.configure("web", level="info", log_format="auto", stream=stream)
    log.debug("too small")
    with logs.serving("abc") as known:
        log.warning("took %d\nitems", 3, extra={"items": 3, "odd": object, "level": "forged"})
    log.info("later")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert known == "abc"
    assert first.pop("ts") > 1.7e9
    assert first.pop("odd").startswith("<class")
    assert first == {
        "level": "warning",
        "process": "web",
        "logger": "server.test",
        "msg": "took 3\nitems",
        "request_id": "abc",
        "items": 3,
    }
    assert "request_id" not in second


def test_a_traceback_stays_in_its_line() -> None:
    stream = io.StringIO()
    logs.configure("agent", level="info", log_format="json", stream=stream)
    try:
        raise ValueError("no\udcff")
    except ValueError:
        log.exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError" in json.loads(line)["exc"]


def test_a_request_without_an_id_gets_one_of_its_own() -> None:
    with logs.serving() as one, logs.serving() as other:
        assert logs.request_id() == other != one
    assert logs.request_id() == ""


def test_a_terminal_gets_coloured_text_and_a_file_can_have_plain_text() -> None:
    terminal, file = Terminal(), io.StringIO()
    logs.configure("web", level="info", log_format="auto", stream=terminal)
    log.error("broken", extra={"items": 3})
    assert "\x1b[31merror  \x1b[0m web: broken items=3\n" in terminal.getvalue()
    logs.configure("web", level="info", log_format="text", stream=file)
    log.error("broken")
    assert file.getvalue().endswith(" error   web: broken\n")
