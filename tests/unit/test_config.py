"""Settings: which layer wins, what is refused and in which words, and that the docs list all."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from server.config import Settings, SettingsError, load, unknown_variables
from server.setting_kinds import Secret

DOCS = Path(__file__).resolve().parents[2] / "docs" / "settings.md"


def test_defaults_need_nothing() -> None:
    settings = load({}, {})
    assert (settings.host, settings.port, settings.data_dir) == ("127.0.0.1", 5000, Path("data"))
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]*", settings.node_id)


@pytest.mark.parametrize(
    ("flags", "environ", "port"),
    [
        ({}, {}, 1001),
        ({"port": None}, {"CONTEXT_PORT": "1002"}, 1002),
        ({"port": 1003}, {"CONTEXT_PORT": "1002"}, 1003),
    ],
)
@pytest.mark.parametrize("name", ["node.toml", "node.yaml"])
def test_a_later_layer_wins(
    tmp_path: Path, name: str, flags: dict[str, Any], environ: dict[str, str], port: int
) -> None:
    path = tmp_path / name
    path.write_text("port = 1001\n" if name.endswith("toml") else "port: 1001\n")
    assert load(flags, environ, path).port == port


def test_text_and_native_values_mean_the_same(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text(
        'feeds = ["binance:BTC/USDT,ETH/USDT", "simulated"]\n'
        'peers = ["10.0.0.1:5000", "10.0.0.2:5000"]\n'
        "torch_worker = false\nhealth_interval_s = 0\n"
        '[tokenizers]\nsmall = "/t.json"\n'
    )
    environ = {
        "CONTEXT_FEEDS": "binance:BTC/USDT,ETH/USDT simulated",
        "CONTEXT_PEERS": "10.0.0.1:5000,10.0.0.2:5000",
        "CONTEXT_TORCH_WORKER": "no",
        "CONTEXT_HEALTH_INTERVAL_S": "0",
        "CONTEXT_TOKENIZERS": "small=/t.json",
    }
    assert load({}, {}, path) == load({}, environ)


@pytest.mark.parametrize(
    ("variable", "value", "line"),
    [
        ("PORT", "70000", "port='70000' from CONTEXT_PORT: must be a whole number from 0 to 65535"),
        ("PORT", "", "port='' from CONTEXT_PORT: must be a whole number from 0 to 65535"),
        ("HEALTH_INTERVAL_S", "nan", "must be a number from 0 to 86400"),
        ("ASYNC_MODE", "tornado", "must be one of eventlet, threading, gevent"),
        ("TORCH_WORKER", "perhaps", "must be true or false"),
        ("NODE_ID", "Node 1", "must be 1 to 63 of a-z, 0-9 and -, not starting with -"),
        ("PEERS", "10.0.0.1", "must be HOST:PORT,..."),
        ("FEEDS", "binance:", "must be feeds such as simulated or binance:BTC/USDT,ETH/USDT"),
        ("TOKENIZERS", "small", "must be model=tokenizer.json,..."),
        ("DATA_DIR", "", "must be a path"),
        ("LOG_LEVEL", "x" * 500, "must be one of debug, info, warning, error"),
    ],
)
def test_a_wrong_setting_is_one_line(variable: str, value: str, line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({}, {f"CONTEXT_{variable}": value})
    text = str(caught.value)
    assert line in text
    assert f"from CONTEXT_{variable}" in text
    assert "\n" not in text
    assert len(text) < 250


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.toml", "prot = 1", "prot in {path}: no such setting; did you mean port?"),
        ("a.toml", "port = true", "port=True in {path}: must be a whole number from 0 to 65535"),
        ("a.toml", "port = 1.0", "port=1.0 in {path}: must be a whole number from 0 to 65535"),
        ("a.toml", "port = = 1", "config='{path}': not valid: "),
        ("a.yaml", "- port", "config='{path}': must hold `name: value` pairs"),
        ("a.yaml", "port: [", "config='{path}': not valid: "),
        ("a.yaml", "1: 2", "1 in {path}: no such setting"),
        ("a.json", "{}", "config='{path}': must end in .toml, .yaml or .yml"),
        ("a.toml", None, "config='{path}': cannot be read: No such file or directory"),
    ],
)
def test_a_wrong_file_is_one_line(
    tmp_path: Path, name: str, content: str | None, line: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError) as caught:
        load({}, {}, path)
    assert str(caught.value).startswith(line.format(path=path))
    assert "\n" not in str(caught.value)


def test_an_empty_yaml_file_sets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "node.yml"
    path.touch()
    assert load({}, {}, path) == load({}, {})


def test_settings_reach_a_child_unchanged() -> None:
    environ = {"CONTEXT_FEEDS": "simulated", "CONTEXT_TOKENIZERS": "a=b"}
    settings = load({"data_dir": "/srv/x", "port": 0, "health_interval_s": 2.5}, environ)
    assert Settings.from_json(settings.to_json()) == settings


def test_misspelt_variables_are_named_and_the_others_left_alone() -> None:
    environ = {"CONTEXT_PROT": "1", "CONTEXT_PORT": "2", "CONTEXT_READY_FD": "3", "PATH": "/"}
    assert unknown_variables(environ) == ["CONTEXT_PROT sets nothing; did you mean CONTEXT_PORT?"]


def test_the_docs_list_every_setting() -> None:
    rows = dict(
        re.findall(r"^\| `(\w+)` \| (.*) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert list(rows) == [each.name for each in fields(Settings)]
    for each in fields(Settings):
        default, meaning, allowed = rows[each.name].split(" | ")
        assert meaning == each.metadata["meaning"]
        assert allowed == each.metadata["kind"].allowed
        secret = isinstance(each.metadata["kind"], Secret)  # an empty one is a mistake
        if each.name != "node_id" and not secret:
            shown = default.strip("`")
            assert each.metadata["kind"].parse("" if shown == "none" else shown) == getattr(
                Settings(), each.name
            )
