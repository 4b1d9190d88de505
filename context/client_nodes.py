"""Where a client's calls go: to one node of several, until it fails; then to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import requests

from context.client_answers import problem_of, reason, was_never_sent
from context.client_errors import ClientError, NodeUnreachable, RequestFailed
from context.client_values import bearer
from context.events import is_after

CONNECT_S = 3.0  # where there is another node to go to
# Another node may do better; the same is true of what a proxy says of a node behind it.
_ELSEWHERE = frozenset({502, 503, 504})
_NOTHING_DONE = frozenset(
    ("behind", "clocks_differ", "no_leader", "no_majority", "not_leader", "not_ready", "stopping")
)


def addresses(url: str | Sequence[str]) -> list[str]:
    """Base addresses, of a list or of text with commas between them; raises ValueError."""
    given = url.split(",") if isinstance(url, str) else list(url)
    for each in given or [""]:
        parts = urlsplit(each.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url must look like http://host:port (got {each!r})")
    return [each.strip().rstrip("/") for each in given]


class Nodes:
    """Sends requests to whichever node answers; reads see what this client has written."""

    def __init__(
        self, url: str | Sequence[str], session: requests.Session | None, token: str | None
    ) -> None:
        """Raises ValueError for an address that is none."""
        self._urls, self._at = addresses(url), 0
        self._session = session or requests.Session()
        self._auth = bearer(token) if token else None
        self._written = ""  # cursor of the newest acknowledged write

    @property
    def url(self) -> str:
        """The node that is asked now."""
        return self._urls[self._at]

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def wrote(self, cursor: str) -> None:
        """An item was acknowledged: later reads see it, from whichever node."""
        if not self._written or is_after(cursor, self._written):
            self._written = cursor

    def send(
        self,
        method: str,
        path: str,
        *,
        reads: bool = False,
        repeatable: bool = False,
        accept: int = 200,
        **how: Any,
    ) -> requests.Response:
        """The answer of the first node that gives one, or that refuses for good.

        What neither `reads` nor is `repeatable` goes to another node only where nothing of it was
        done; a GET reads. A refusal with the status `accept` is an answer.
        """
        repeatable = repeatable or reads or method == "GET"
        reads = reads or (method == "GET" and path.startswith("/api/"))
        for left in reversed(range(len(self._urls))):
            try:
                return self._seeing(method, path, reads=reads, accept=accept, **how)
            except ClientError as error:
                if not _is_the_nodes(error):
                    raise
                self._at = (self._at + 1) % len(self._urls)
                if not left and isinstance(error, NodeUnreachable):
                    raise NodeUnreachable(", ".join(self._urls), error.reason) from error
                if not left or not (repeatable or _did_nothing(error)):
                    raise
        raise AssertionError("there is at least one address")

    def _seeing(self, method: str, path: str, *, reads: bool, **how: Any) -> requests.Response:
        """Ask one node, which must have what this client has written."""
        if not self._written or not reads:
            return self._ask(method, path, **how)
        seen = {"min_cursor": self._written}
        try:
            return self._ask(method, path, **{**how, "params": {**seen, **how.get("params", {})}})
        except RequestFailed as error:
            if error.code != "bad_cursor":
                raise
        self._written = ""  # another log: what was written is not there to be seen
        return self._ask(method, path, **how)

    def _ask(self, method: str, path: str, *, accept: int, **how: Any) -> requests.Response:
        wait = how["timeout"]
        if len(self._urls) > 1 and not isinstance(wait, tuple):
            how["timeout"] = (min(wait, CONNECT_S), wait)
        try:
            answer = self._session.request(method, self.url + path, auth=self._auth, **how)
        except requests.Timeout as error:
            sent = not isinstance(error, requests.ConnectTimeout)
            raise NodeUnreachable(self.url, f"no answer within {wait} s", sent=sent) from error
        except requests.RequestException as error:
            sent = not was_never_sent(error)
            raise NodeUnreachable(self.url, reason(error), sent=sent) from error
        if answer.ok or answer.status_code == accept:
            return answer
        with answer:
            after = answer.headers.get("Retry-After", "")
            raise RequestFailed(problem_of(answer), float(after) if after.isdecimal() else 0.0)


def _is_the_nodes(error: ClientError) -> bool:
    """Whether the fault is this node's, so that another one may do better."""
    return not isinstance(error, RequestFailed) or error.status in _ELSEWHERE


def _did_nothing(error: ClientError) -> bool:
    """Whether nothing of the request was done, so that it may be sent again."""
    if isinstance(error, NodeUnreachable):
        return not error.sent
    return isinstance(error, RequestFailed) and error.code in _NOTHING_DONE
