"""What a call to a node can raise.

ClientError
├── NodeUnreachable   nothing answers at the address, or the connection broke: try again later
└── RequestFailed     a node answered with a problem (RFC 9457); `retryable`: try again
"""

from __future__ import annotations

from typing import Any

# Busy, no leader, disk full; 502 and 504 come from a proxy in front of a node that is starting.
TRY_AGAIN = frozenset({429, 502, 503, 504, 507})


class ClientError(Exception):
    """Base of what a call to a node can raise."""

    retryable = False
    retry_after_s = 0.0


class NodeUnreachable(ClientError):
    """Nothing answers at `url`, or the connection broke before the answer was complete."""

    retryable = True

    def __init__(self, url: str, reason: str, *, sent: bool = True) -> None:
        """Unless `sent`, nobody got the request."""
        super().__init__(f"no node reachable at {url} ({reason})")
        self.url = url
        self.reason = reason
        self.sent = sent


class RequestFailed(ClientError):
    """A node answered with a problem: `problem` is the problem+json document as it came."""

    def __init__(self, problem: dict[str, Any], retry_after_s: float = 0.0) -> None:
        super().__init__(f"{problem.get('detail') or problem.get('title')} ({problem.get('code')})")
        self.problem = problem
        self.status = int(problem.get("status", 0))
        self.code = str(problem.get("code", ""))
        self.retryable = bool(problem.get("retryable")) or self.status in TRY_AGAIN
        self.retry_after_s = retry_after_s
