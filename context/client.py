"""Client of one node or several: REST and Server-Sent Events, with `requests` alone.

A program can import it without any of the server's packages.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, Self
from urllib.parse import quote, urlencode

import requests
from urllib3.exceptions import HTTPError, ReadTimeoutError

from context import frames
from context.client_answers import json_of, not_a_node
from context.client_errors import ClientError, NodeUnreachable, RequestFailed
from context.client_nodes import Nodes
from context.client_retries import OnRetry, Retries
from context.client_values import Json, OnProgress, encode, params, routing, save, without_none
from context.events import Event, EventDecoder, is_after

__all__ = ["Client", "ClientError", "Event", "NodeUnreachable", "RequestFailed"]

_EXPORT_SILENCE_S = 60.0  # a node waits half of this for a process of its own that restarts


class Client:
    """A node's REST interface as methods; answers are the JSON documents of the API as dicts.

    Every method raises NodeUnreachable or RequestFailed. Close it, or use it in a `with` block.
    With several addresses a call goes on to the next node where one cannot answer, unless that
    could do it twice; what this client has stored, it finds again on every node.
    """

    def __init__(
        self,
        url: str | Sequence[str] = "http://127.0.0.1:5000",
        timeout_s: float = 10.0,
        session: requests.Session | None = None,
        token: str | None = None,
    ) -> None:
        """`url` may be several, in a list or with commas; `token` is the nodes' `api_token`."""
        self._nodes = Nodes(url, session, token)
        self.timeout_s = timeout_s

    @property
    def url(self) -> str:
        """Address of the node that is asked now."""
        return self._nodes.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._nodes.close()

    # Context

    def ingest(
        self,
        items: Json | Sequence[Json] | bytes,
        idempotency_key: str | None = None,
        *,
        give_up_after_s: float = 30.0,
        on_retry: OnRetry | None = None,
    ) -> Json:
        """Store one item, a list of items, or bytes of NDJSON: all or none, durable on return.

        With an idempotency key a broken connection and the answers 429, 503 and 507 are tried
        again until `give_up_after_s` after the first failure, and still everything is stored
        once; without a key there is a single try. `on_retry(error, pause_s)` hears of each.
        """
        body, media = encode(items)
        headers, keyed = {"Content-Type": media}, idempotency_key is not None
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        retries = Retries(give_up_after_s if keyed else 0.0, on_retry)
        while True:
            try:
                how = {"data": body, "headers": headers, "repeatable": keyed}
                stored = self._call("POST", "/api/context/ingest", **how)
            except ClientError as error:
                retries.wait(error)
                continue
            self._nodes.wrote(stored["cursor"])
            return stored

    def latest(self, **filters: Any) -> Json:
        """Newest items first; filters: type, source, symbol, limit, before."""
        return self._call("GET", "/api/context/latest", params=params(filters))

    def search(self, query: str, **options: Any) -> Json:
        """One page of hits; options are those of the API (mode, regex, since, limit...)."""
        body = {"query": query, **without_none(options)}
        wait_s = self.timeout_s + body.get("deadline_ms", 0) / 1000
        how = {"params": routing(body), "json": body, "timeout": wait_s, "reads": True}
        return self._call("POST", "/api/context/search", **how)

    def search_all(self, query: str, **options: Any) -> Iterator[Json]:
        """Every hit, newest first, page after page; `limit` is the size of a page."""
        page = self.search(query, **{"limit": 1000, **options})
        yield from page["items"]
        while page["next"] is not None:
            page = self.search(query, **{"limit": 1000, **options, "before": page["next"]})
            yield from page["items"]

    def item(self, offset: int) -> Json:
        """The item at an offset."""
        return self._call("GET", f"/api/context/items/{offset}")

    def stats(self) -> Json:
        """Counts, bytes and rates of what the node holds."""
        return self._call("GET", "/api/context/stats")

    def chain(self) -> Json:
        """Head of the chain over decisions and outcomes, and which history is gone."""
        return self._call("GET", "/api/context/ai/chain")

    def backtest(self, wish: Json) -> Json:
        """Start a back-test; the answer's `id` asks for its report."""
        return self._call("POST", "/api/context/ai/backtests", json=wish)

    def backtest_report(self, number: str) -> Json:
        """The report, or `{"state": "running", ...}`."""
        return self._call("GET", f"/api/context/ai/backtests/{quote(number, safe='')}")

    def backtest_plot(self, number: str) -> bytes:
        """Its plot, an SVG."""
        path = f"/api/context/ai/backtests/{quote(number, safe='')}/plot"
        with self._send("GET", path) as answer:
            return answer.content

    def export(
        self,
        target: str | Path | BinaryIO,
        format: str = "ndjson",
        *,
        on_progress: OnProgress | None = None,
        **filters: Any,
    ) -> Json:
        """Write everything that passes, oldest first; returns `{"format", "bytes", "as_of"}`.

        Formats: ndjson, csv, arrow; filters: those of the API. A file named by its path is there
        only once it is whole. `on_progress(bytes)` hears how much has come.
        """
        how = params({"format": format, **filters})
        path, wait = "/api/context/export", (self.timeout_s, _EXPORT_SILENCE_S)
        with self._send("GET", path, params=how, stream=True, timeout=wait) as answer:
            as_of = answer.headers.get("Context-As-Of")
            if as_of is None:
                raise RequestFailed(not_a_node(answer))
            try:
                count = save(answer.iter_content(1 << 18), target, on_progress)
            except requests.RequestException as error:
                raise NodeUnreachable(self.url, "the export broke off") from error
        return {"format": format, "bytes": count, "as_of": as_of}

    def to_pandas(self, **filters: Any) -> Any:
        """What `export` gives as a pandas DataFrame; needs pandas and pyarrow."""
        return frames.to_pandas(self.export, **filters)

    def to_polars(self, **filters: Any) -> Any:
        """What `export` gives as a polars DataFrame; needs polars."""
        return frames.to_polars(self.export, **filters)

    def stream(
        self,
        after: str | None = None,
        *,
        silence_s: float = 45.0,
        give_up_after_s: float | None = None,
        on_retry: OnRetry | None = None,
        subscriptions: Mapping[str, Mapping[str, Any]] | None = None,
        **filters: Any,
    ) -> Iterator[Event]:
        """Follow the log: each matching item once and in order, across broken connections.

        Starts after the cursor `after`; without one at this call, so that what is stored from
        its return on is seen. A node writes at least a comment every 15 s: after `silence_s`
        without a byte the connection counts as dead. Reconnects until `give_up_after_s` passed
        without an event (None: for ever). Filters: those of a search, `query` being one of them.
        With `subscriptions`, filters by name, an event's data names those it is for.
        """
        start = after if after is not None else str(self.latest(limit=1)["as_of"])
        asked = params(filters)
        if subscriptions:
            asked["subscription"] = [
                f"{k}:{urlencode(params(v))}" for k, v in subscriptions.items()
            ]
        return self._follow(start, asked, silence_s, Retries(give_up_after_s, on_retry))

    def poll(
        self,
        after: str | None = None,
        *,
        wait_s: float = 25.0,
        limit: int | None = None,
        **filters: Any,
    ) -> Json:
        """One long poll, `{"items", "next", "gap", "as_of"}`; go on after `next`."""
        how = params({"after": after, "wait_s": wait_s, "limit": limit, **filters})
        wait = self.timeout_s + wait_s
        return self._call("GET", "/api/context/poll", params=how, timeout=wait)

    def follow(
        self,
        after: str | None = None,
        *,
        wait_s: float = 25.0,
        give_up_after_s: float | None = None,
        on_retry: OnRetry | None = None,
        **filters: Any,
    ) -> Iterator[Event]:
        """What `stream` gives, by long polls: for where a proxy cuts streams or holds them back."""
        start = after if after is not None else str(self.poll(wait_s=0, **filters)["next"])
        return self._polled(start, wait_s, filters, Retries(give_up_after_s, on_retry))

    def _polled(
        self, last: str, wait_s: float, filters: Mapping[str, Any], retries: Retries
    ) -> Iterator[Event]:
        while True:
            try:
                page = self.poll(last, wait_s=wait_s, **filters)
            except ClientError as error:
                retries.wait(error)
                continue
            retries.reset()
            for item in page["items"]:
                yield Event("context", item["id"], item)
            last = page["next"]
            if page["gap"]:
                yield Event("gap", last, page["gap"])

    def _follow(
        self, last: str, params: Mapping[str, Any], silence_s: float, retries: Retries
    ) -> Iterator[Event]:
        while True:
            try:
                with closing(self._events(last, params, silence_s)) as events:
                    for event in events:
                        retries.reset()
                        if event.cursor and is_after(event.cursor, last):
                            last = event.cursor
                        elif event.kind == "context":
                            continue
                        yield event
                raise NodeUnreachable(self.url, "the node ended the stream")
            except ClientError as error:
                retries.wait(error)

    def _events(self, last: str, params: Mapping[str, Any], silence_s: float) -> Generator[Event]:
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        answer = self._send(
            "GET",
            "/api/context/stream",
            params=params,
            headers=headers | {"Last-Event-ID": last},
            stream=True,
            timeout=(self.timeout_s, silence_s),
        )
        with answer:
            if "text/event-stream" not in answer.headers.get("Content-Type", ""):
                raise RequestFailed(not_a_node(answer))
            decoder = EventDecoder()
            try:
                # read1, not iter_content: it hands over what has arrived, chunked or not.
                while chunk := answer.raw.read1(65536, decode_content=False):
                    yield from decoder.feed(chunk)
            except ReadTimeoutError as error:
                raise NodeUnreachable(self.url, f"silent for {silence_s:g} s") from error
            except HTTPError as error:
                raise NodeUnreachable(self.url, "connection lost") from error

    # Decisions

    def decide(self, symbols: Sequence[str], **options: Any) -> Json:
        """Ask the models for a decision; options: context, models, deadline_ms, coverage, ..."""
        body = {"symbols": list(symbols), **without_none(options)}
        wait_s = self.timeout_s + body.get("deadline_ms", 5000) / 1000
        return self._call("POST", "/api/context/ai/decide", json=body, timeout=wait_s)

    def decisions(self, **filters: Any) -> Json:
        """Recorded decisions, newest first; filters: limit, model, symbol."""
        return self._call("GET", "/api/context/ai/decisions", params=params(filters))

    def decision(self, decision_id: str) -> Json:
        """One recorded decision."""
        return self._call("GET", f"/api/context/ai/decisions/{quote(decision_id, safe='')}")

    def models(self) -> Json:
        """The models with weight, health and counts."""
        return self._call("GET", "/api/context/ai/models")

    def outcome(
        self, decision_id: str, outcome: str | None = None, *, realised: float | None = None
    ) -> Json:
        """Tell what came of a decision: the right answer, or the realised return (0.01 = 1 %)."""
        path = f"/api/context/ai/decisions/{quote(decision_id, safe='')}/outcome"
        body = without_none({"outcome": outcome, "return": realised})
        return self._call("POST", path, json=body)

    # Nodes and operation

    def nodes(self) -> Json:
        """The nodes of the cluster, their leader and term."""
        return self._call("GET", "/api/nodes")

    def status(self) -> Json:
        """`{"ready", "healthz", "readyz"}`: whether the node serves, and what it says to both."""
        healthz = self._call("GET", "/healthz", accept=503)
        answer = self._send("GET", "/readyz", accept=503)
        return {"ready": answer.status_code == 200, "healthz": healthz, "readyz": json_of(answer)}

    def control(self) -> Json:
        """Whether trading actions are stopped."""
        return self._call("GET", "/api/control")

    def emergency_stop(self) -> Json:
        """Stop trading actions on every node, durably."""
        return self._call("POST", "/api/control/emergency-stop", json={})

    def resume(self) -> Json:
        """Allow trading actions again."""
        return self._call("POST", "/api/control/resume", json={})

    def trading(self) -> Json:
        """Session, positions, profit and loss, open orders."""
        return self._call("GET", "/api/context/trading")

    def start_trading(self, mode: str, **options: Any) -> Json:
        """Act on decisions; options: broker, symbols, quote, live, confirm, ask_every_s."""
        body = {"mode": mode, **without_none(options)}
        return self._call("POST", "/api/context/trading/start", json=body, timeout=60.0)

    def stop_trading(self) -> Json:
        """End it: open orders are cancelled, positions stay."""
        return self._call("POST", "/api/context/trading/stop", json={})

    def _call(self, method: str, path: str, **how: Any) -> Json:
        return json_of(self._send(method, path, **how))

    def _send(self, method: str, path: str, **how: Any) -> requests.Response:
        return self._nodes.send(method, path, **{"timeout": self.timeout_s, **how})
