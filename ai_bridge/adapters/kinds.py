"""The kinds of models that a user can add: a new kind is one module, and one line in KINDS."""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from ai_bridge.adapters.http import Http
from ai_bridge.adapters.model_custom import CustomModel
from ai_bridge.adapters.model_koboldcpp import KoboldBackend
from ai_bridge.adapters.model_openai import OpenAIBackend
from ai_bridge.adapters.model_remote import RemoteModel
from ai_bridge.adapters.model_torch import TorchModel
from ai_bridge.adapters.model_torch_file import TorchFileModel
from ai_bridge.adapters.prompt_files import load
from ai_bridge.adapters.text_model import TextModel
from ai_bridge.custom import register
from ai_bridge.errors import ModelUnavailable
from ai_bridge.networks import FOLDER
from ai_bridge.ports import Model, Question
from ai_bridge.prediction import Prediction
from ai_bridge.specs import ModelSpec, origin, refused

ENTRY_POINTS = "context_media_server.models"
_log = logging.getLogger(__name__)


class Added(Model, Protocol):
    """A model that a user added."""

    def about(self) -> dict[str, Any]:
        """What is shown of it beside its settings."""
        ...

    async def health(self) -> str:
        """One line about it; raises where it is not well."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """What models are built with.

    `keys` are the environment variables that may be named over REST, each with the address that
    its key may be sent to; else anybody who may register a model could read every variable.
    """

    http: Http
    environ: Mapping[str, str]
    keys: Mapping[str, str] = field(default_factory=dict)
    prompts: Path | None = None
    torch: TorchModel | None = None


def _openai(spec: ModelSpec, services: Services, key: str | None) -> Added:
    spec.need("base_url")
    backend = OpenAIBackend(spec, services.http, key)
    return TextModel(spec, backend, load(spec.prompt, services.prompts))


def _koboldcpp(spec: ModelSpec, services: Services, key: str | None) -> Added:
    spec.need("base_url")
    backend = KoboldBackend(spec, services.http, key)
    return TextModel(spec, backend, load(spec.prompt, services.prompts))


def _remote(spec: ModelSpec, services: Services, key: str | None) -> Added:
    spec.need("base_url", "model")
    return RemoteModel(spec, services.http, key)


def _custom(spec: ModelSpec, services: Services, key: str | None) -> Added:
    spec.need("model")
    return CustomModel(spec)


def _torch(spec: ModelSpec, services: Services, key: str | None) -> Added:
    spec.need("model")
    if not re.fullmatch(FOLDER, spec.model or ""):
        raise refused("model", f"{spec.model!r} is not the name of a folder below models/")
    if services.torch is None:
        raise refused("kind", "torch needs the setting torch_worker")
    return TorchFileModel(spec, services.torch)


KINDS: dict[str, Callable[[ModelSpec, Services, str | None], Added]] = {
    "openai": _openai,
    "koboldcpp": _koboldcpp,
    "remote": _remote,
    "torch": _torch,
    "custom": _custom,
}


def build(spec: ModelSpec, services: Services, *, trusted: bool) -> Added:
    """Make the model of a spec; `trusted` specs come from the operator's own file.

    Raises InvalidRequest naming the field that is wrong.
    """
    if spec.kind not in KINDS:
        raise refused("kind", f"must be one of {', '.join(KINDS)}, got {spec.kind[:40]!r}")
    spec.settings()
    if spec.base_url is not None:
        origin(spec.base_url)
    return KINDS[spec.kind](spec, services, _key(spec, services, trusted))


def load_classes(modules: Iterable[str]) -> None:
    """Register the classes of installed packages' entry points, and import the given modules.

    What cannot be loaded is logged; models of such a class say so when they are built.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as fault:
            _log.error("module of models not loaded", extra={"reason": f"{module}: {fault!r}"})
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            register(entry.load(), entry.name)
        except Exception as fault:
            _log.error("class not loaded", extra={"reason": f"{entry.value}: {fault!r}"})


def _key(spec: ModelSpec, services: Services, trusted: bool) -> str | None:
    name = spec.api_key_env
    if name is None:
        return None
    if not trusted:
        address = services.keys.get(name)
        if address is None or origin(address) != origin(spec.base_url or ""):
            raise refused(
                "api_key_env", f"{name} may not be sent to {spec.base_url}: see `api_keys`"
            )
    if not services.environ.get(name):
        raise refused("api_key_env", f"{name} is not set in the node's environment")
    return services.environ[name]


class Absent:
    """In the place of a model that could not be built: it says why at every question."""

    def __init__(self, spec: ModelSpec, reason: str) -> None:
        self.name, self.kind, self.spec, self._reason = spec.name, spec.kind, spec, reason

    def about(self) -> dict[str, Any]:
        """What is shown of it beside its settings."""
        return self.spec.about()

    async def health(self) -> str:
        """Raises the reason."""
        raise ModelUnavailable(self._reason)

    async def decide(self, question: Question) -> Prediction:
        """Raises the reason."""
        raise ModelUnavailable(self._reason)
