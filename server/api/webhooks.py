"""REST calls on webhooks."""

from __future__ import annotations

from context.request import HookRequest
from server.api.operations import Operation

_ONE = "/api/context/webhooks/<hook_id>"

OPERATIONS = (
    Operation(
        "POST",
        "/api/context/webhooks",
        "Send what matches to an address: in order, at least once, signed",
        call="webhook_create",
        body=HookRequest,
        answers={201: "the webhook; with its secret where none was given", 400: "not possible"},
    ),
    Operation("GET", "/api/context/webhooks", "All webhooks and how they do", call="webhooks"),
    Operation(
        "GET",
        _ONE,
        "One webhook",
        call="webhook",
        answers={200: "the webhook", 404: "unknown"},
    ),
    Operation(
        "DELETE",
        _ONE,
        "End a webhook and forget its dead letters",
        call="webhook_delete",
        answers={200: "deleted", 404: "unknown"},
    ),
    Operation(
        "POST",
        f"{_ONE}/resume",
        "Send again at once, also where it was stopped",
        call="webhook_resume",
        answers={200: "the webhook", 404: "unknown"},
    ),
    Operation(
        "GET",
        f"{_ONE}/dead-letters",
        "What was given up after too many attempts",
        call="webhook_dead_letters",
        answers={200: "the dead letters, oldest first", 404: "unknown"},
    ),
    Operation(
        "POST",
        f"{_ONE}/dead-letters/retry",
        "Send what was given up once more, before anything new",
        call="webhook_retry",
        answers={202: "it is being sent", 404: "unknown"},
    ),
)
