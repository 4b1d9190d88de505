"""Users' networks in the torch worker: loaded when first asked, warmed up, reloaded when replaced.

A folder holds `config.json` and `model.safetensors`. Only tensors are read; the architecture is one
of ours (`ai_bridge.networks`).
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ai_bridge.errors import Abstained, InvalidRequest
from ai_bridge.features import NAMES
from ai_bridge.models.window import mean_of
from ai_bridge.networks import (
    FOLDER,
    MAX_FILE_BYTES,
    NetworkConfig,
    check_shapes,
    parse_config,
    softmax,
)
from ai_bridge.prediction import Prediction
from ai_bridge.series import Floats, Series

MAX_LOADED = 16
_ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU, "gelu": torch.nn.GELU}


class Network(torch.nn.Module):
    """One of the architectures; logits of a (batch, steps, features) tensor."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList()
        self.gru: torch.nn.GRU | None = None
        self.activation = _ACTIVATIONS[config.activation]()
        width, hidden = config.steps * len(NAMES), config.hidden
        if config.architecture == "gru":
            self.gru = torch.nn.GRU(len(NAMES), hidden, config.layers, batch_first=True)
        else:
            for layer in range(config.layers):
                self.layers.append(torch.nn.Linear(hidden if layer else width, hidden))
        self.head = torch.nn.Linear(hidden, len(config.decisions))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits, (batch, decisions)."""
        if self.gru is not None:
            states, _ = self.gru(inputs)
            state = states[:, -1]
        else:
            state = inputs.flatten(1)
            for layer in self.layers:
                state = self.activation(layer(state))
        logits: torch.Tensor = self.head(state)
        return logits


@dataclass(slots=True)
class Loaded:
    """A network ready to answer."""

    config: NetworkConfig
    network: Network
    changed_ns: tuple[int, int]
    about: str
    digest: str  # SHA-256 of config.json followed by model.safetensors, both as in the files


class UserNetworks:
    """The networks below one folder, by the name of their own."""

    def __init__(self, folder: Path, device: str) -> None:
        self._folder = folder
        self._device = torch.device(device)
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()

    def about(self, name: str) -> str:
        """One line about a network, which is loaded for it; raises InvalidRequest."""
        return self._get(name).about

    def predict(self, name: str, windows: list[Series], decisions: list[str]) -> Prediction:
        """Answer for all windows in one batch, by their mean.

        Raises Abstained where no window will do, InvalidRequest where the network cannot be loaded.
        """
        loaded = self._get(name)
        config = loaded.config
        if set(decisions) != set(config.decisions):
            raise Abstained(f"answers {', '.join(config.decisions)} only")
        fitting: list[Series] = []
        inputs: list[Floats] = []
        refused: list[str] = []
        for window in windows:
            try:
                inputs.append(config.inputs(window))
                fitting.append(window)
            except Abstained as why:
                refused.append(why.detail)
        if not inputs:
            raise Abstained("; ".join(refused) or "no symbols")
        batch = torch.stack([torch.as_tensor(each, dtype=torch.float32) for each in inputs])
        logits = self._run(loaded.network, batch)
        chosen = config.decisions
        judged = [
            Prediction(
                dict(zip(chosen, softmax(row), strict=True)),
                f"{window.symbol} by {loaded.about}",
                chosen,
            )
            for window, row in zip(fitting, logits, strict=True)
        ]
        return replace(mean_of(judged, refused), digest=loaded.digest)

    def _run(self, network: Network, batch: torch.Tensor) -> list[list[float]]:
        with torch.inference_mode():
            rows: list[list[float]] = network(batch.to(self._device)).double().tolist()
        return rows

    def _get(self, name: str) -> Loaded:
        if not re.fullmatch(FOLDER, name):
            raise InvalidRequest(f"{name[:80]!r} is not the name of a folder of models")
        folder = self._folder / name
        try:
            files = (folder / "config.json", folder / "model.safetensors")
            changed = (files[0].stat().st_mtime_ns, files[1].stat().st_mtime_ns)
            known = self._loaded.get(name)
            if known is None or known.changed_ns != changed:
                known = self._load(folder, changed)
                self._loaded[name] = known
        except FileNotFoundError as missing:
            raise InvalidRequest(f"there is no {missing.filename}") from missing
        except (OSError, SafetensorError) as damage:
            raise InvalidRequest(f"{name} cannot be read: {damage}") from damage
        self._loaded.move_to_end(name)
        while len(self._loaded) > MAX_LOADED:
            self._loaded.popitem(last=False)
        return known

    def _load(self, folder: Path, changed: tuple[int, int]) -> Loaded:
        path = folder / "model.safetensors"
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise InvalidRequest(f"{path.name} is {size} bytes, at most {MAX_FILE_BYTES} are read")
        told = (folder / "config.json").read_bytes()
        config = parse_config(told)
        with safe_open(path, framework="pt") as file:
            check_shapes(config, {n: tuple(file.get_slice(n).get_shape()) for n in file.keys()})  # noqa: SIM118
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        network = Network(config)
        network.load_state_dict(tensors)
        network.to(self._device).eval()
        warm = torch.zeros(1, config.steps, len(NAMES))
        self._run(network, warm)  # the first call is the slow one
        with path.open("rb") as raw:
            digest = hashlib.file_digest(raw, "sha256").hexdigest()[:12]
            raw.seek(0)
            whole = hashlib.file_digest(raw, lambda: hashlib.sha256(told)).hexdigest()
        count = sum(tensor.numel() for tensor in tensors.values())
        about = f"{config.architecture} of {count} parameters on {self._device}, sha256 {digest}"
        return Loaded(config, network, changed, about, whole)
