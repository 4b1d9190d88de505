"""One model's part in one decision."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Status = Literal["ok", "abstained", "timeout", "error", "unavailable"]


class Vote(msgspec.Struct, frozen=True, kw_only=True):
    """What a model answered, or why it did not.

    `weight` is its share of the consensus (0 unless `status` is `ok`); `decision`, `confidence` and
    `distribution` are present only where it is `ok`, and `calibrated`, what that distribution has
    been worth, where enough outcomes are known. `digest` is the SHA-256 of the model's weights
    and configuration as they were when it was asked.
    """

    model: str
    status: Status
    decision: str | None = None
    confidence: float | None = None
    distribution: dict[str, float] | None = None
    calibrated: dict[str, float] | None = None
    weight: float = 0.0
    latency_ms: float = 0.0
    reasoning: str = ""
    digest: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the vote in the shape of the API, every field present."""
        return {name: getattr(self, name) for name in self.__struct_fields__}
