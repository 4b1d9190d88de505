"""Structured logs of every process of a node: JSON lines, or coloured text on a terminal.

    {"ts": 1790000000.123, "level": "info", "process": "web", "logger": "server.api",
     "msg": "ingested", "request_id": "f3a9...", "items": 1000}

`ts` is unix seconds. What a call passes as `extra={...}` is added as further fields; `exc` holds
a traceback. `request_id` is that of the request being served, where there is one.
"""

from __future__ import annotations

import json
import logging
import random
import time
from contextvars import ContextVar
from typing import Any, TextIO

import msgspec

_ids = random.Random()  # no secrets: the system's own chance would cost a call of the kernel each
_request_id: ContextVar[str] = ContextVar("request_id", default="")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_COLOURS = {"DEBUG": "2", "INFO": "36", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}


def configure(process: str, *, level: str, log_format: str, stream: TextIO) -> None:
    """Send every logger of this process to `stream`, replacing what was set up before.

    `process` names the role (supervisor, agent, web, worker); `log_format` is auto, json or text.
    """
    as_text = log_format == "text" or (log_format == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextLines(process, stream.isatty()) if as_text else JsonLines(process))
    logging.captureWarnings(True)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def request_id() -> str:
    """The id of the request being served; empty outside of one."""
    return _request_id.get()


class serving:
    """Give all lines logged inside one request id: the caller's, or a new one."""

    __slots__ = ("_id", "_token")

    def __init__(self, known_id: str = "") -> None:
        self._id = known_id or f"{_ids.getrandbits(64):016x}"

    def __enter__(self) -> str:
        self._token = _request_id.set(self._id)
        return self._id

    def __exit__(self, *_: object) -> None:
        _request_id.reset(self._token)


def usable_id(given: str) -> str:
    """A caller's request id where it may stand in logs and headers, else empty."""
    return given if 0 < len(given) <= 64 and given.isascii() and given.isprintable() else ""


class JsonLines(logging.Formatter):
    """One JSON object a line, never more than one line."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        line: dict[str, Any] = {
            "ts": round(record.created, 6),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "msg": record.getMessage(),
        }
        if request_id():
            line["request_id"] = request_id()
        line |= {name: value for name, value in _extra(record).items() if name not in line}
        if record.exc_info:
            line["exc"] = self.formatException(record.exc_info)
        try:
            return msgspec.json.encode(line, enc_hook=repr).decode()
        except (
            TypeError,
            ValueError,
        ):  # half a surrogate pair, odd keys: escaped is better than lost
            return json.dumps(line, default=repr, skipkeys=True)


class TextLines(logging.Formatter):
    """Local time, level, process, message, then the fields; coloured on a terminal."""

    def __init__(self, process: str, coloured: bool) -> None:
        super().__init__()
        self._process, self._coloured = process, coloured

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line for people."""
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = f"{record.levelname.lower():<7}"
        if self._coloured:
            level = f"\x1b[{_COLOURS.get(record.levelname, '0')}m{level}\x1b[0m"
        fields = _extra(record) | ({"request_id": request_id()} if request_id() else {})
        tail = "".join(f" {name}={value}" for name, value in fields.items())
        line = f"{at} {level} {self._process}: {record.getMessage()}{tail}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}
