"""What can go wrong between a question and a decision, and whose fault it is.

BridgeError
├── NoModels          503  nobody could vote: each model's reason is in `errors`
├── Abstained         503  a model declines to answer this question (a vote, not a fault)
├── ModelUnavailable  503  a model's process or server is not there
├── InvalidPrediction 502  a model answered with something that is not a distribution
├── ModelExists       409  the caller: another model has that name
├── UnknownModel      400  the caller: a name that no registered model has
├── InvalidRequest    400  the caller: an option has a wrong type or value
└── InvalidRecord     422  a stored decision lacks what replay or learning needs
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from context.errors import FieldError


class BridgeError(Exception):
    """Base of this package's errors; becomes one problem+json answer."""

    code: ClassVar[str] = "bridge_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = list(errors)


class NoModels(BridgeError):
    """Nobody could vote; the detail names every model's reason."""

    code = "no_models"
    status = 503
    retryable = True


class Abstained(BridgeError):
    """A model declines: it has too little to go on, and says what is missing."""

    code = "abstained"
    status = 503
    retryable = True


class ModelUnavailable(BridgeError):
    """A model's process or server does not answer; it may say when to ask again."""

    code = "model_unavailable"
    status = 503
    retryable = True

    def __init__(self, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class InvalidPrediction(BridgeError):
    """A model's answer is not a distribution over the decisions."""

    code = "invalid_prediction"
    status = 502


class UnknownModel(BridgeError):
    """No registered model has that name."""

    code = "unknown_model"
    status = 400


class InvalidRequest(BridgeError):
    """An option has a wrong type or value."""

    code = "invalid_request"
    status = 400


class ModelExists(InvalidRequest):
    """Another model is registered under that name."""

    code = "model_exists"
    status = 409


class InvalidRecord(BridgeError):
    """A stored decision lacks what replay or learning needs."""

    code = "invalid_record"
    status = 422
