"""From an error to one problem+json (RFC 9457): the only place that makes them."""

from __future__ import annotations

import http
import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from server.ipc import Answer

log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"


def problem(
    status: int, code: str, detail: str, *, retryable: bool = False, **more: Any
) -> dict[str, Any]:
    """The members of a problem document."""
    return {
        "type": f"urn:context:problem:{code}",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "retryable": retryable,
        **more,
    }


def describe(exc: BaseException) -> dict[str, Any]:
    """Problem of an error: the packages' errors say what they are, others are our own fault."""
    code = getattr(exc, "code", None)
    status = getattr(exc, "status", None)
    if not isinstance(code, str) or not isinstance(status, int):
        log.error("unexpected error", exc_info=exc)
        return problem(500, "internal_error", "the node failed here; its log tells where")
    errors = getattr(exc, "errors", None)
    more: dict[str, Any] = {"errors": errors} if errors else {}
    detail = getattr(exc, "detail", None) or str(exc)
    return problem(status, code, detail, retryable=bool(getattr(exc, "retryable", False)), **more)


def answer(document: Mapping[str, Any]) -> Answer:
    """The HTTP answer of a problem document."""
    headers = {"Content-Type": MEDIA_TYPE}
    if document["retryable"]:
        headers["Retry-After"] = "1"
    return Answer(document["status"], headers, msgspec.json.encode(document))
