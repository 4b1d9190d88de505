"""What a search may ask for, checked, with refusals that name field, value and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from context.errors import InvalidRequest
from context.filter import Filter
from context.items import Cursor
from context.query import Selection, compile_matcher

Limit = Annotated[int, Meta(ge=1, le=10_000)]
Types = Annotated[list[str], Meta(min_length=1)]
Request = TypeVar("Request", bound=msgspec.Struct)

_ALLOWED = {
    "query": "text",
    "regex": "true or false",
    "ignore_case": "true or false",
    "ack": "true or false",
    "conflate": '"symbol"',
    "invert": "true or false",
    "count_only": "true or false",
    "type": "text",
    "types": "a list of at least one text",
    "source": "text",
    "symbol": "text",
    "since": "a finite number of unix seconds",
    "until": "a finite number of unix seconds",
    "limit": "a whole number from 1 to 10000",
    "after": 'a cursor "<epoch>:<offset>"',
    "before": 'a cursor "<epoch>:<offset>"',
    "context": "a whole number from 0 to 20",
    "deadline_ms": "a whole number from 1 to 60000",
    "mode": "text, semantic or hybrid",
    "url": "text",
    "secret": "text",
    "wait_s": "a number of seconds from 0 to 60",
    "format": "ndjson, csv or arrow",
}
_TEXT_ONLY = ("regex", "invert", "context", "count_only")
_FIELD = re.compile(r"at `\$\.(\w+)")
_NAMED = re.compile(r"(missing required|unknown) field `(.*)`")


class SearchRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of a search; `types` and `type` together mean any of them."""

    query: str
    regex: bool = False
    ignore_case: bool = False
    type: str | None = None
    types: Types | None = None
    source: str | None = None
    symbol: str | None = None
    since: float | None = None
    until: float | None = None
    limit: Limit = 50
    before: str | None = None
    context: Annotated[int, Meta(ge=0, le=20)] = 0
    invert: bool = False
    count_only: bool = False
    deadline_ms: Annotated[int, Meta(ge=1, le=60_000)] = 1000
    mode: Literal["text", "semantic", "hybrid"] = "text"

    def filter(self) -> Filter:
        """The conditions apart from the query."""
        types = {*(self.types or ()), *((self.type,) if self.type is not None else ())}
        return Filter(
            frozenset(types) if types else None, self.source, self.symbol, self.since, self.until
        )

    def selection(self) -> Selection:
        """What passes; raises BadPattern."""
        matcher = compile_matcher(self.query, regex=self.regex, ignore_case=self.ignore_case)
        return Selection(self.filter(), matcher, self.invert)


class LatestRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of the newest items."""

    type: str | None = None
    source: str | None = None
    symbol: str | None = None
    limit: Limit = 100
    before: str | None = None

    def filter(self) -> Filter:
        """The conditions on items."""
        types = frozenset((self.type,)) if self.type is not None else None
        return Filter(types, self.source, self.symbol)


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which items to give: what a search may ask for, without its pages; no query is all."""

    query: str | None = None
    regex: bool = False
    ignore_case: bool = False
    type: str | None = None
    types: Types | None = None
    source: str | None = None
    symbol: str | None = None
    since: float | None = None
    until: float | None = None
    invert: bool = False

    def selection(self) -> Selection:
        """What passes; raises BadPattern."""
        types = {*(self.types or ()), *((self.type,) if self.type is not None else ())}
        wish = Filter(
            frozenset(types) if types else None, self.source, self.symbol, self.since, self.until
        )
        if self.query is None and not self.invert:
            return Selection(wish)
        how = {"regex": self.regex, "ignore_case": self.ignore_case}
        return Selection(wish, compile_matcher(self.query or "", **how), self.invert)


class StreamRequest(Wish, frozen=True, kw_only=True):
    """Options of a stream or subscription, a standing grep included, and where to resume."""

    after: str | None = None


class LiveRequest(StreamRequest, frozen=True, kw_only=True):
    """Options of a stream or subscription that is pushed: how it is served besides.

    `conflate`: while it is behind, of each symbol only the newest item is sent. `ack`: the client
    acknowledges what it is sent.
    """

    conflate: Literal["symbol"] | None = None
    ack: bool = False

    def wish(self) -> bytes:
        """What is asked for, apart from place and manner: equal for all who are sent the same."""
        names = (name for name in StreamRequest.__struct_fields__ if name != "after")
        return msgspec.json.encode([getattr(self, name) for name in names])


class PollRequest(StreamRequest, frozen=True, kw_only=True):
    """Options of a long poll: those of a stream, how long to wait, and at most how many items."""

    wait_s: Annotated[float, Meta(ge=0, le=60)] = 25.0
    limit: Limit = 1000

    def stream(self) -> StreamRequest:
        """What the same items would be as a stream."""
        return StreamRequest(
            **{name: getattr(self, name) for name in StreamRequest.__struct_fields__}
        )


class HookRequest(StreamRequest, frozen=True, kw_only=True):
    """Body of a new webhook: where to send, signed with what, and which items from where on."""

    url: str
    secret: str | None = None


class ExportRequest(Wish, frozen=True, kw_only=True):
    """Options of an export."""

    format: Literal["ndjson", "csv", "arrow"] = "ndjson"


def parse_search(body: object) -> SearchRequest:
    """A search from its decoded JSON body.

    Raises InvalidRequest naming the first wrong field, BadCursor where `before` is no cursor.
    """
    request = _parse(SearchRequest, body, strict=True)
    if request.mode != "text":
        for name in _TEXT_ONLY:
            if getattr(request, name):
                message = f'goes with mode "text" only, not with "{request.mode}"'
                raise _invalid(name, f"{name} {message}", message)
        if not request.query.strip():
            message = f'must not be blank with mode "{request.mode}"'
            raise _invalid("query", f"query {message}", message)
    return request


def parse_latest(args: Mapping[str, str]) -> LatestRequest:
    """Options from the texts of a URL, where an empty text means not given; errors as above."""
    return _parse(LatestRequest, {k: v for k, v in args.items() if v}, strict=False)


def parse_stream(args: Mapping[str, Any]) -> StreamRequest:
    """Options from a URL's texts or from a JSON object, where null or "" means not given.

    Raises InvalidRequest naming the first wrong field.
    """
    return _parse(StreamRequest, _given(args), strict=False)


def parse_live(args: Mapping[str, Any]) -> LiveRequest:
    """Options of a stream or subscription that is pushed, as above."""
    return _parse(LiveRequest, _given(args), strict=False)


def parse_poll(args: Mapping[str, Any]) -> PollRequest:
    """Options of a long poll, as above."""
    return _parse(PollRequest, _given(args), strict=False)


def parse_hook(body: object) -> HookRequest:
    """A new webhook from its decoded JSON body."""
    return _parse(HookRequest, body, strict=True)


def parse_export(args: Mapping[str, str]) -> ExportRequest:
    """Options of an export, as above."""
    return _parse(ExportRequest, _given(args), strict=False)


def _given(args: Mapping[str, Any]) -> dict[str, Any]:
    """What was given; in a URL `types` is a text with commas."""
    given = {name: value for name, value in args.items() if value not in (None, "")}
    if isinstance(given.get("types"), str):
        given["types"] = given["types"].split(",")
    return given


def _parse(kind: type[Request], body: object, *, strict: bool) -> Request:
    try:
        request = msgspec.convert(body, kind, strict=strict)
    except msgspec.ValidationError as exc:
        raise _refused(kind, body, str(exc)) from exc
    for name in ("since", "until", "wait_s"):
        value = getattr(request, name, None)
        if value is not None and not isfinite(value):
            raise _wrong(name, value)
    before = getattr(request, "before", None)
    if before is not None:
        Cursor.parse(before)
    return request


def _refused(kind: type[msgspec.Struct], body: object, reason: str) -> InvalidRequest:
    if not isinstance(body, Mapping):
        return InvalidRequest("the body must be a JSON object with the options of the request")
    field = _FIELD.search(reason)
    if field:
        return _wrong(field[1], body.get(field[1]))
    named = _NAMED.search(reason)
    if not named:
        return InvalidRequest(reason)
    known = ", ".join(kind.__struct_fields__)
    text = "is missing" if named[1] != "unknown" else f"is not an option; known are {known}"
    return _invalid(named[2], f"{named[2]} {text}", text)


def _wrong(name: str, value: Any) -> InvalidRequest:
    shown = msgspec.json.encode(value).decode() if _is_json(value) else str(value)
    message = f"must be {_ALLOWED[name]}, got {shown[:80]}"
    return _invalid(name, f"{name} {message}", message)


def _is_json(value: Any) -> bool:
    return not isinstance(value, float) or isfinite(value)


def _invalid(name: str, detail: str, message: str) -> InvalidRequest:
    return InvalidRequest(detail[:300], [{"index": 0, "field": name[:80], "message": message}])
