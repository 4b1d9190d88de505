"""Webhooks: what is sent, how it is signed, and what an answer means. Sending is not done here.

A webhook reads on after its cursor like every other subscriber; an answer of 2xx moves the cursor.
Signed as https://www.standardwebhooks.com asks: the header `webhook-signature` is `v1,` and the
base64 of the HMAC-SHA256 over "<webhook-id>.<webhook-timestamp>.<body>", keyed with the bytes that
stand in base64 after `whsec_`. `webhook-id` is the same whenever the same content is sent.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from context.errors import InvalidRequest
from context.webhook_reading import Delivery

MAX_URL_CHARS = 2000
FIRST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_ASKED_S = 1.0, 300.0, 3600.0

Verdict = Literal["delivered", "gone", "failed"]


class Hook(msgspec.Struct, kw_only=True, frozen=True):
    """A webhook as it is stored; a new one of these is made at each step."""

    layout: int = 1
    id: str
    url: str
    secret: str
    wish: dict[str, Any]  # as a stream's options
    created_at: float
    cursor: str  # up to here everything was acknowledged, dead-lettered, or did not match
    state: Literal["active", "stopped"] = "active"
    reason: str | None = None  # why it is stopped
    attempts: int = 0  # that failed for what is due now
    delivered: int = 0  # items
    deliveries: int = 0
    failures: int = 0  # attempts that failed, ever
    dead_letters: int = 0
    last_error: str | None = None
    last_error_at: float | None = None
    last_delivery_at: float | None = None

    def moved(self, cursor: str) -> Hook:
        """Nothing matched up to here."""
        return msgspec.structs.replace(self, cursor=cursor)

    def succeeded(self, sent: Delivery, now: float) -> Hook:
        """What was due is acknowledged; the next is due."""
        done = self.sent_again(sent, now)
        return msgspec.structs.replace(done, cursor=str(sent.cursor), attempts=0)

    def sent_again(self, sent: Delivery, now: float) -> Hook:
        """A dead letter, or part of one, is acknowledged."""
        return msgspec.structs.replace(
            self,
            delivered=self.delivered + sent.count,
            deliveries=self.deliveries + 1,
            last_delivery_at=now,
        )

    def failed(self, error: str, now: float, attempts: int) -> Hook:
        """An attempt failed; `attempts` did so on what is due."""
        return msgspec.structs.replace(
            self,
            attempts=attempts,
            failures=self.failures + 1,
            last_error=error,
            last_error_at=now,
        )

    def given_up(self, sent: Delivery, most: int) -> Hook:
        """What was due became a dead letter; the next is due, unless there are too many."""
        dead = self.dead_letters + 1
        hook = msgspec.structs.replace(self, cursor=str(sent.cursor), attempts=0, dead_letters=dead)
        return hook.stopped(f"{dead} deliveries were given up") if dead >= most else hook

    def one_less_dead(self) -> Hook:
        """A dead letter is acknowledged after all."""
        return msgspec.structs.replace(self, dead_letters=max(0, self.dead_letters - 1))

    def stopped(self, reason: str) -> Hook:
        """Sends nothing until it is resumed."""
        return msgspec.structs.replace(self, state="stopped", reason=reason)

    def resumed(self) -> Hook:
        """Sends again, with all attempts before it."""
        return msgspec.structs.replace(self, state="active", reason=None, attempts=0)


class DeadLetter(msgspec.Struct, kw_only=True, frozen=True):
    """What was given up: the items that match after `after`, up to `cursor`. The log holds them."""

    layout: int = 1
    delivery_id: str
    after: str
    cursor: str
    items: int
    attempts: int
    error: str
    at: float


def check_url(url: str, allowed: Sequence[str]) -> None:
    """Raises InvalidRequest for what may not be called; without patterns every host may."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as wrong:
        raise _refused("url", f"is not a URL: {wrong}") from wrong
    if parts.scheme not in ("http", "https") or not host:
        raise _refused("url", "must begin with http:// or https:// and a host")
    if parts.username or parts.password or parts.fragment:
        raise _refused("url", "must hold neither a user name nor a fragment")
    if not url.isascii() or any(char <= " " for char in url) or len(url) > MAX_URL_CHARS:
        raise _refused("url", f"must be at most {MAX_URL_CHARS} ASCII characters without spaces")
    if allowed and not any(fnmatchcase(host, pattern.lower()) for pattern in allowed):
        raise _refused("url", f"names {host}, which the setting webhook_allow does not allow")


def make_secret(key: bytes) -> str:
    """The secret as text."""
    return "whsec_" + base64.b64encode(key).decode()


def key_of(secret: str) -> bytes:
    """The key in a secret; raises InvalidRequest."""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError) as wrong:
        raise _refused("secret", "must be whsec_ and base64") from wrong
    if not secret.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise _refused("secret", "must be whsec_ and the base64 of 24 to 64 bytes")
    return key


def signed(sent: Delivery, secret: str, now: float) -> dict[str, str]:
    """The headers of an attempt at unix second `now`."""
    stamp = str(int(now))
    text = f"{sent.id}.{stamp}.".encode() + sent.body
    digest = hmac.new(key_of(secret), text, hashlib.sha256).digest()
    return {
        "webhook-id": sent.id,
        "webhook-timestamp": stamp,
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }


def verdict(status: int) -> Verdict:
    """What an answer means. A redirect is a failure: it may lead where nobody allowed."""
    if 200 <= status < 300:
        return "delivered"
    return "gone" if status == 410 else "failed"


def pause_s(attempts: int, headers: Mapping[str, str], chance: float) -> float:
    """How long to wait after so many failures: doubling, spread by `chance` in 0..1.

    At least what the receiver's `Retry-After` (seconds) asks for, within an hour.
    """
    doubled = FIRST_PAUSE_S * 2.0 ** min(attempts - 1, 30)
    pause = min(doubled, LONGEST_PAUSE_S) * (0.5 + chance / 2)
    asked = headers.get("retry-after", "")
    seconds = float(asked) if asked.isascii() and asked.isdecimal() and len(asked) < 10 else 0.0
    return max(pause, min(seconds, LONGEST_ASKED_S))


def _refused(field: str, problem: str) -> InvalidRequest:
    message = f"{field} {problem}"
    return InvalidRequest(message, [{"index": 0, "field": field, "message": problem}])
