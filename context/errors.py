"""What can go wrong with context, and whose fault it is.

ContextError
├── InvalidItem        422  the sender: an item breaks its type's rules
├── InvalidJson        400  the sender: the body is not JSON
├── InvalidRequest     400  the sender: an option has a wrong type or value
├── BadPattern         400  the sender: the search pattern is not RE2 syntax or too costly
├── BadCursor          400  the sender: not a cursor, or of another log
├── BodyTooLarge       413  the sender
├── UnsupportedMedia   415  the sender
├── KeyReused          422  the sender: an idempotency key came back with another body
├── NotFound           404  the sender
├── RateLimited        429  nobody: try again later
├── StorageFull        507  the node's disk
├── FencedOut          409  this node: a newer leader has written
├── ForeignHistory     409  the operator: this node's items are of another log than the cluster's
├── Behind             503  this node: it has not applied what the caller wants to see
├── NotLeader          503  this node: it was taken for the leader, and is not
├── NoLeader           503  the cluster: no node leads now; nothing was stored
├── OutcomeUnknown     503  the cluster: the write may or may not have been stored
└── NoMajority         503  the cluster: nothing was stored
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypedDict


class FieldError(TypedDict):
    """One refused input: position in the batch, dotted field, and what is wrong with it."""

    index: int
    field: str
    message: str


class ContextError(Exception):
    """Base of this package's errors; becomes one problem+json answer."""

    code: ClassVar[str] = "context_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = list(errors)


class InvalidItem(ContextError):
    """An item breaks the rules of its type."""

    code = "invalid_item"
    status = 422


class InvalidJson(ContextError):
    """The body is not JSON."""

    code = "invalid_json"
    status = 400


class InvalidRequest(ContextError):
    """An option has a wrong type or value."""

    code = "invalid_request"
    status = 400


class BadPattern(ContextError):
    """The pattern is not RE2 syntax, or costs too much."""

    code = "bad_pattern"
    status = 400


class BadCursor(ContextError):
    """Not a cursor, or a cursor of another log."""

    code = "bad_cursor"
    status = 400


class BodyTooLarge(ContextError):
    """A body is larger than the node accepts, as sent or decompressed."""

    code = "body_too_large"
    status = 413


class UnsupportedMedia(ContextError):
    """A content type or encoding that this node does not read."""

    code = "unsupported_media_type"
    status = 415


class KeyReused(ContextError):
    """An idempotency key came back with another body."""

    code = "idempotency_key_reused"
    status = 422


class NotFound(ContextError):
    """There is nothing at that place."""

    code = "not_found"
    status = 404


class RateLimited(ContextError):
    """A queue is full; the same request may succeed a moment later."""

    code = "rate_limited"
    status = 429
    retryable = True


class StorageFull(ContextError):
    """The disk took no more; nothing of the request was stored."""

    code = "storage_full"
    status = 507
    retryable = True


class FencedOut(ContextError):
    """A higher term has already written to the log."""

    code = "fenced_out"
    status = 409
    retryable = True


class ForeignHistory(ContextError):
    """This node's items belong to another log than the cluster's."""

    code = "foreign_history"
    status = 409


class Behind(ContextError):
    """This node has not applied the item that the caller wants to see; another may have."""

    code = "behind"
    status = 503
    retryable = True


class NotLeader(ContextError):
    """Another node took this one for the leader; nothing was done."""

    code = "not_leader"
    status = 503
    retryable = True


class NoLeader(ContextError):
    """No node leads now, or the one that does cannot be reached; nothing was stored."""

    code = "no_leader"
    status = 503
    retryable = True


class OutcomeUnknown(ContextError):
    """No answer came from the cluster; the same request with its key again finds out."""

    code = "outcome_unknown"
    status = 503
    retryable = True


class NoMajority(ContextError):
    """No majority of the cluster answers; nothing of the request was stored."""

    code = "no_majority"
    status = 503
    retryable = True
