"""What can go wrong with a market feed."""

from __future__ import annotations

from context.errors import ContextError


class FeedError(ContextError):
    """An exchange sent something that is not what it documents, or refused the subscription."""

    code = "feed_error"
    status = 502
    retryable = True
