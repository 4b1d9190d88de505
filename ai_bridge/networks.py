"""Networks that a user brings as a safetensors file: their description, inputs and tensors.

`config.json` beside the file names one of a few architectures; nothing in either file is run. The
input is what the learning model sees too (`ai_bridge.features`): the vectors of the newest `steps`
closed bars, oldest first. The output are logits over `decisions`.

    mlp   the vectors in a row -> `layers` times (linear, activation) -> head
    gru   the vectors one after the other -> `layers` stacked GRU layers -> last state -> head
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from ai_bridge.bars import bars_of
from ai_bridge.errors import Abstained, InvalidRequest
from ai_bridge.features import LOOKBACK_BARS, NAMES, features
from ai_bridge.prediction import DECISIONS
from ai_bridge.series import Floats, Series

Shapes = dict[str, tuple[int, ...]]
FOLDER = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
MAX_FILE_BYTES = 1 << 30


class NetworkConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of `config.json`."""

    architecture: Literal["mlp", "gru"]
    decisions: Annotated[tuple[str, ...], Meta(min_length=2, max_length=16)] = DECISIONS
    hidden: Annotated[int, Meta(ge=1, le=4096)] = 16
    layers: Annotated[int, Meta(ge=1, le=8)] = 1
    activation: Literal["tanh", "relu", "gelu"] = "tanh"  # of an mlp
    steps: Annotated[int, Meta(ge=1, le=256)] = 1
    bar_s: Annotated[float, Meta(gt=0, le=86_400)] = 1.0

    def shapes(self) -> Shapes:
        """Name and shape of every tensor that the file must hold, and no other."""
        tensors = _gru(self) if self.architecture == "gru" else _mlp(self)
        count = len(self.decisions)
        return {**tensors, "head.weight": (count, self.hidden), "head.bias": (count,)}

    def inputs(self, series: Series) -> Floats:
        """(steps, len(NAMES)) float64 of a window; raises Abstained with what is missing."""
        bars = bars_of(series, self.bar_s)
        closed = bars.before(bars.last)  # the newest may still be open
        first = closed.last - self.steps + 1
        vectors = [features(closed, number) for number in range(first, closed.last + 1)]
        if not len(closed) or any(vector is None for vector in vectors):
            raise Abstained(
                f"{series.symbol}: {len(closed)} closed bars of {self.bar_s:g} s, needs "
                f"{LOOKBACK_BARS + self.steps} in which the price moves"
            )
        return np.stack([vector for vector in vectors if vector is not None])


def parse_config(raw: bytes) -> NetworkConfig:
    """Read `config.json`; raises InvalidRequest saying what is wrong."""
    try:
        config = msgspec.json.decode(raw, type=NetworkConfig)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as wrong:
        raise InvalidRequest(f"config.json: {wrong}") from wrong
    if len(set(config.decisions)) < len(config.decisions):
        raise InvalidRequest("config.json: decisions must differ from each other")
    return config


def check_shapes(config: NetworkConfig, found: Shapes) -> None:
    """Raise InvalidRequest, naming the tensor, where a file's tensors are not the config's."""
    wanted = config.shapes()
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise InvalidRequest(
                f"tensor {name}: the file has {_shape(found.get(name))}, "
                f"config.json asks for {_shape(wanted.get(name))}"
            )


def softmax(logits: list[float]) -> list[float]:
    """Probabilities of logits; raises ValueError where one is not finite."""
    if not all(math.isfinite(logit) for logit in logits):
        raise ValueError(f"the network answered {logits}")
    top = max(logits)
    raised = [math.exp(logit - top) for logit in logits]
    total = math.fsum(raised)
    return [value / total for value in raised]


def _mlp(config: NetworkConfig) -> Shapes:
    shapes: Shapes = {}
    width = config.steps * len(NAMES)
    for layer in range(config.layers):
        shapes[f"layers.{layer}.weight"] = (config.hidden, width)
        shapes[f"layers.{layer}.bias"] = (config.hidden,)
        width = config.hidden
    return shapes


def _gru(config: NetworkConfig) -> Shapes:
    shapes: Shapes = {}
    width, gates = len(NAMES), 3 * config.hidden
    for layer in range(config.layers):
        shapes[f"gru.weight_ih_l{layer}"] = (gates, width)
        shapes[f"gru.weight_hh_l{layer}"] = (gates, config.hidden)
        shapes[f"gru.bias_ih_l{layer}"] = (gates,)
        shapes[f"gru.bias_hh_l{layer}"] = (gates,)
        width = config.hidden
    return shapes


def _shape(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else "x".join(map(str, shape))
