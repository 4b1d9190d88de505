"""A small torch network that learns online which decision would have been right.

Ten features, sixteen tanh units, three classes; cross-entropy on the newest examples after each new
one. Before it has seen an example's label, its forecast is scored against that of the running base
rates, so its claim to know anything is always on record.

Stored as one safetensors file: the weights, the replay buffer, and as metadata a JSON `state`.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ai_bridge.features import NAMES
from ai_bridge.prediction import DECISIONS
from ai_bridge.series import Floats
from ai_bridge.weights import brier
from shared_storage.adapters.durable import replace_file

FORMAT = "ai_bridge.learner/1"
HIDDEN = 16
# Ten times the rate fits the replayed examples so closely that it loses to the base rates on every
# recorded market; at this one it beats them on four of five.
LEARNING_RATE = 3e-4
WEIGHT_DECAY = 1.0
REPLAYED_EXAMPLES = 1024
REMEMBERED_MARKETS = 1024
_FLOOR = 1e-12


class Progress(msgspec.Struct):
    """What was learned so far, and how the forecasts did; losses are sums over `scored`."""

    examples: int = 0
    version: int = 0
    scored: int = 0
    brier: float = 0.0
    log_loss: float = 0.0
    base_brier: float = 0.0
    base_log_loss: float = 0.0
    classes: list[int] = msgspec.field(default_factory=lambda: [0] * len(DECISIONS))
    learned_until: dict[str, int] = msgspec.field(
        default_factory=dict
    )  # bar number by market: nothing is learned twice


class Learner:
    """The network, its optimiser, its replay buffer and its record."""

    def __init__(self, path: Path, device: str) -> None:
        self.path = path
        self.device = torch.device(device)
        self.progress = Progress()
        self.saved_version = 0
        self._digest = (-1, "")  # of which version
        self._buffer: deque[tuple[Floats, int]] = deque(maxlen=REPLAYED_EXAMPLES)
        self._network = _network().to(self.device)
        self.origin = self._load()
        self._optimiser = torch.optim.AdamW(
            self._network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY
        )

    def predict(self, vector: Floats) -> dict[str, float]:
        """Return the distribution over DECISIONS for one feature vector."""
        with torch.no_grad():
            logits = self._network(self._tensor(vector[None, :]))
            chances = torch.softmax(logits.double(), dim=1)[0].tolist()
        return dict(zip(DECISIONS, chances, strict=True))

    def digest(self) -> str:
        """SHA-256 of the weights as they are now: each tensor's name, then its values."""
        if self._digest[0] != self.progress.version:
            hashed = hashlib.sha256()
            for name, value in sorted(self._network.state_dict().items()):
                hashed.update(name.encode() + b"\0" + value.cpu().numpy().tobytes())
            self._digest = (self.progress.version, hashed.hexdigest())
        return self._digest[1]

    def base_rates(self) -> dict[str, float]:
        """Return how often each class occurred so far (add-one), the forecast to beat."""
        counts = self.progress.classes
        total = sum(counts) + len(counts)
        return {name: (n + 1) / total for name, n in zip(DECISIONS, counts, strict=True)}

    def score(self, forecast: dict[str, float], base: dict[str, float], outcome: int) -> None:
        """Record how a forecast, made before the outcome was known, turned out."""
        right, progress = DECISIONS[outcome], self.progress
        progress.scored += 1
        progress.brier += brier(forecast, right)
        progress.log_loss -= math.log(max(_FLOOR, forecast[right]))
        progress.base_brier += brier(base, right)
        progress.base_log_loss -= math.log(max(_FLOOR, base[right]))

    def learn(self, vector: Floats, outcome: int) -> None:
        """Take one example in and make one optimiser step over the newest examples."""
        self._buffer.append((vector, outcome))
        inputs = self._tensor(np.stack([each for each, _ in self._buffer]))
        targets = torch.tensor([each for _, each in self._buffer], device=self.device)
        self._optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(self._network(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self.progress.examples += 1
        self.progress.version += 1
        self.progress.classes[outcome] += 1

    def remember(self, market: str, number: int) -> None:
        """Note the newest bar learned from a market, forgetting the market idle for longest."""
        known = self.progress.learned_until
        known.pop(market, None)
        known[market] = number
        if len(known) > REMEMBERED_MARKETS:
            del known[next(iter(known))]

    def status(self) -> dict[str, Any]:
        """Return examples, running losses beside the base rate's, version, device and origin."""
        progress, scored = self.progress, self.progress.scored or math.nan
        losses = {
            name: None if math.isnan(scored) else getattr(progress, name) / scored
            for name in ("brier", "log_loss", "base_brier", "base_log_loss")
        }
        return {
            "examples": progress.examples,
            "version": progress.version,
            "saved_version": self.saved_version,
            "scored": progress.scored,
            **losses,
            "base_rates": self.base_rates(),
            "device": str(self.device),
            "origin": self.origin,
        }

    def save(self) -> None:
        """Replace the stored file atomically: write, fsync, rename, fsync the folder."""
        vectors = [vector for vector, _ in self._buffer]
        tensors = {
            f"network.{name}": value.cpu().contiguous()
            for name, value in self._network.state_dict().items()
        }
        tensors["buffer.features"] = torch.tensor(np.array(vectors).reshape(-1, len(NAMES)))
        tensors["buffer.classes"] = torch.tensor([outcome for _, outcome in self._buffer]).long()
        state = msgspec.json.encode(self.progress).decode()
        replace_file(self.path, save(tensors, {"format": FORMAT, "state": state}))
        self.saved_version = self.progress.version

    def _load(self) -> str:
        """Take up what was stored, and say where the weights come from."""
        if not self.path.exists():
            return "fresh"
        try:
            network, buffer, progress = _read(self.path)
            self._network.load_state_dict(network)
        except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as damage:
            aside = self.path.with_suffix(".damaged")
            self.path.replace(aside)
            self._network = _network().to(self.device)
            return f"fresh: the stored weights are damaged ({damage}), kept as {aside.name}"
        self._buffer.extend(buffer)
        self.progress = progress
        self.saved_version = progress.version
        return "stored"

    def _tensor(self, rows: Floats) -> torch.Tensor:
        return torch.as_tensor(rows, dtype=torch.float32, device=self.device)


def _network() -> torch.nn.Sequential:
    """Build the untrained network: always the same, and answering each class with one third."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hidden = torch.nn.Linear(len(NAMES), HIDDEN)
    output = torch.nn.Linear(HIDDEN, len(DECISIONS))
    torch.nn.init.zeros_(output.weight)
    torch.nn.init.zeros_(output.bias)
    return torch.nn.Sequential(hidden, torch.nn.Tanh(), output)


Stored = tuple[dict[str, torch.Tensor], list[tuple[Floats, int]], Progress]


def _read(path: Path) -> Stored:
    """Read weights, replay buffer and progress; raises ValueError where they make no sense."""
    with safe_open(path, framework="pt") as stored:
        metadata = stored.metadata() or {}
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    if metadata.get("format") != FORMAT:
        raise ValueError(f"format {metadata.get('format')!r} is not {FORMAT!r}")
    progress = msgspec.json.decode(metadata["state"], type=Progress)
    vectors, outcomes = tensors.pop("buffer.features"), tensors.pop("buffer.classes")
    if vectors.shape != (len(outcomes), len(NAMES)):
        raise ValueError(f"buffer of shape {tuple(vectors.shape)} for {len(outcomes)} classes")
    if not all(bool(torch.isfinite(value).all()) for value in (vectors, *tensors.values())):
        raise ValueError("a stored number is not finite")
    buffer = list(zip(vectors.double().numpy(), map(int, outcomes.tolist()), strict=True))
    network = {name.removeprefix("network."): value for name, value in tensors.items()}
    return network, buffer, progress
