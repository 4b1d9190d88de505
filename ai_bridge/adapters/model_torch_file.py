"""A safetensors file that the torch worker answers from."""

from __future__ import annotations

from typing import Any

from ai_bridge.adapters.model_torch import TorchModel
from ai_bridge.ports import Question
from ai_bridge.prediction import Prediction
from ai_bridge.specs import ModelSpec


class TorchFileModel:
    """Asks the worker for the vote of the network in folder `model` below `models/`."""

    kind = "torch"

    def __init__(self, spec: ModelSpec, worker: TorchModel) -> None:
        self.name, self.spec = spec.name, spec
        self._worker, self._network = worker, spec.model or ""

    def about(self) -> dict[str, Any]:
        """What is shown of it beside its settings."""
        return self.spec.about()

    async def health(self) -> str:
        """Architecture, size, device and digest."""
        return await self._worker.network(self._network)

    async def decide(self, question: Question) -> Prediction:
        """The network's answer."""
        return await self._worker.decide_by(self._network, question)
