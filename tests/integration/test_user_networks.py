"""Users' networks: checked beside plain numpy, refused where files are wrong, served by a node."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from ai_bridge.adapters.user_networks import UserNetworks
from ai_bridge.errors import Abstained, InvalidRequest
from ai_bridge.features import NAMES
from ai_bridge.networks import parse_config
from ai_bridge.series import Series
from tests.integration.test_api_ai import DECIDE, MODELS, post, trades
from tests.node_process import NodeProcess, wait_for

DECISIONS = ["buy", "sell", "hold"]
Tensors = dict[str, NDArray[np.float32]]
CONFIGS: list[dict[str, Any]] = [
    {"architecture": "mlp"},
    {"architecture": "mlp", "steps": 3, "layers": 2, "hidden": 5, "activation": "relu"},
    {"architecture": "gru", "steps": 4, "layers": 2, "hidden": 6},
]


def stored(folder: Path, config: dict[str, Any], seed: int = 1, scale: float = 0.5) -> Tensors:
    """A network with random weights in a folder."""
    rng = np.random.default_rng(seed)
    shapes = parse_config(json.dumps(config).encode()).shapes()
    tensors = {
        name: rng.normal(0, scale, shape).astype(np.float32) for name, shape in shapes.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return tensors


def market(count: int = 400) -> Series:
    return Series.of("X", trades("X", count))


def by_numpy(config: dict[str, Any], t: Tensors, inputs: NDArray[np.float64]) -> list[float]:
    """The same network written out."""
    if config["architecture"] == "mlp":
        state = inputs.reshape(-1)
        for n in range(config.get("layers", 1)):
            state = t[f"layers.{n}.weight"] @ state + t[f"layers.{n}.bias"]
            state = np.maximum(state, 0) if config.get("activation") == "relu" else np.tanh(state)
    else:
        steps = list(inputs)
        for n in range(config["layers"]):
            hidden = np.zeros(config["hidden"])
            for at, step in enumerate(steps):
                x = t[f"gru.weight_ih_l{n}"] @ step + t[f"gru.bias_ih_l{n}"]
                h = t[f"gru.weight_hh_l{n}"] @ hidden + t[f"gru.bias_hh_l{n}"]
                (xr, xz, xn), (hr, hz, hn) = np.split(x, 3), np.split(h, 3)
                reset, update = 1 / (1 + np.exp(-(xr + hr))), 1 / (1 + np.exp(-(xz + hz)))
                hidden = (1 - update) * np.tanh(xn + reset * hn) + update * hidden
                steps[at] = hidden
        state = steps[-1]
    raised = np.exp(t["head.weight"] @ state + t["head.bias"])
    shares: list[float] = (raised / raised.sum()).tolist()
    return shares


@pytest.mark.parametrize("config", CONFIGS)
def test_it_answers_as_the_network_written_out(tmp_path: Path, config: dict[str, Any]) -> None:
    tensors = stored(tmp_path / "mine", config)
    answer = UserNetworks(tmp_path, "cpu").predict("mine", [market()], DECISIONS)
    inputs = parse_config(json.dumps(config).encode()).inputs(market())
    assert inputs.shape == (config.get("steps", 1), len(NAMES))
    assert list(answer.distribution.values()) == pytest.approx(
        by_numpy(config, tensors, inputs), abs=1e-5
    )
    assert "sha256" in answer.reasoning


def test_several_windows_are_one_batch_and_too_short_ones_are_left_out(tmp_path: Path) -> None:
    stored(tmp_path / "mine", CONFIGS[2])
    networks = UserNetworks(tmp_path, "cpu")
    alone = [networks.predict("mine", [market(n)], DECISIONS) for n in (400, 300)]
    both = networks.predict("mine", [market(400), market(10), market(300)], DECISIONS)
    for name in DECISIONS:
        mean = sum(each.distribution[name] for each in alone) / 2
        assert both.distribution[name] == pytest.approx(mean, abs=1e-6)
    assert "needs 24" in both.reasoning
    with pytest.raises(Abstained, match="needs 24"):
        networks.predict("mine", [market(10)], DECISIONS)
    with pytest.raises(Abstained, match="answers buy, sell, hold only"):
        networks.predict("mine", [market()], ["go", "wait"])


def test_a_replaced_file_is_read_anew(tmp_path: Path) -> None:
    networks = UserNetworks(tmp_path, "cpu")
    stored(tmp_path / "mine", CONFIGS[0])
    before = networks.about("mine")
    stored(tmp_path / "mine", CONFIGS[0], seed=2)
    os.utime(tmp_path / "mine" / "config.json", ns=(1, 1))
    assert networks.about("mine") != before


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"architecture": "transformer"}, "config.json"),
        ({"architecture": "mlp", "hidden": 0}, "hidden"),
        ({"architecture": "mlp", "code": "import os"}, "code"),
        ({"architecture": "mlp", "decisions": ["a", "a"]}, "decisions must differ"),
        ({"architecture": "mlp", "hidden": 17}, "tensor head.weight: the file has 3x16"),
        ({"architecture": "gru"}, "tensor gru.bias_hh_l0: the file has none"),
    ],
)
def test_wrong_descriptions_are_refused(
    tmp_path: Path, config: dict[str, Any], problem: str
) -> None:
    stored(tmp_path / "mine", CONFIGS[0])
    (tmp_path / "mine" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidRequest, match=problem):
        UserNetworks(tmp_path, "cpu").about("mine")


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    networks = UserNetworks(tmp_path, "cpu")
    for name in ("absent", "../secret", ".", "a/b"):
        with pytest.raises(InvalidRequest):
            networks.about(name)
    stored(tmp_path / "mine", CONFIGS[0])
    whole = (tmp_path / "mine" / "model.safetensors").read_bytes()
    for damaged in (b"", whole[:40], b"\x80\x04pickle" * 20):
        (tmp_path / "mine" / "model.safetensors").write_bytes(damaged)
        with pytest.raises(InvalidRequest, match="cannot be read"):
            networks.about("mine")
    stored(tmp_path / "mine", CONFIGS[0], scale=1e38)
    with pytest.raises(ValueError, match="the network answered"):
        networks.predict("mine", [market()], DECISIONS)


def test_a_node_serves_it(tmp_path: Path) -> None:
    config, folder = CONFIGS[2], tmp_path / "data" / "models" / "mine"
    env = {"CONTEXT_TORCH_WORKER": "true"}
    with NodeProcess(tmp_path / "data", None, env=env) as node:
        api = node.client
        api.ingest(trades("X"))

        def worker_is_up() -> bool:
            models = {m["name"]: m for m in api.get(MODELS).json()["models"]}
            api.post(DECIDE, json={"symbols": ["X"]})
            return models["torch"]["health"] not in ("unknown", "unavailable")

        wait_for(worker_is_up, "the torch worker", 60)
        made = api.post(MODELS, json={"name": "net", "kind": "torch", "model": "mine"})
        assert made.status_code == 201, made.text
        assert made.json()["checked"]["ok"] is False
        assert "there is no " in made.json()["checked"]["detail"]
        tensors = stored(folder, config)
        wish = {"symbols": ["X"], "models": ["net"]}
        vote = post(api, DECIDE, wish)["votes"][0]
        expected = by_numpy(
            config, tensors, parse_config(json.dumps(config).encode()).inputs(market())
        )
        assert list(vote["distribution"].values()) == pytest.approx(expected, abs=1e-5)
        assert "X by gru of " in vote["reasoning"]
        for wrong in ("../mine", "/etc", "a/b"):
            answer = api.post(MODELS, json={"name": "n2", "kind": "torch", "model": wrong})
            assert answer.status_code == 400
