"""What an answer says: its JSON, or the problem that it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from context.client_errors import RequestFailed
from context.client_values import Json

if TYPE_CHECKING:
    import requests


def reason(error: requests.RequestException) -> str:
    """The innermost cause in few words, such as "Connection refused"."""
    cause: BaseException = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__ or cause
    return (isinstance(cause, OSError) and cause.strerror) or str(cause)


def was_never_sent(error: requests.RequestException) -> bool:
    """Whether there was no connection that the request could have gone into."""
    cause = error.args[0] if error.args else None
    return type(getattr(cause, "reason", None)).__name__ == "NewConnectionError"


def _document(answer: requests.Response) -> Json:
    """The JSON object of an answer, empty where it is something else."""
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def json_of(answer: requests.Response) -> Json:
    """The document of a success; raises RequestFailed where there is none."""
    if body := _document(answer):
        return body
    raise RequestFailed(not_a_node(answer))


def problem_of(answer: requests.Response) -> Json:
    """The problem of a refusal."""
    body = _document(answer)
    return body if "code" in body else not_a_node(answer)


def not_a_node(answer: requests.Response) -> Json:
    """Problem of an answer that is not the API's: a proxy, or another program at the address."""
    detail = f"{answer.url} answered {answer.status_code} {answer.reason} without the API's JSON"
    return {
        "title": answer.reason,
        "status": answer.status_code,
        "detail": detail,
        "code": "not_a_node",
    }
