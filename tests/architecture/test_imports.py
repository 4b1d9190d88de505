"""Imports point inwards: reads every module and fails on what the layers do not allow.

    shared_storage  <-  context  <-  ai_bridge  <-  server  <-  app.py
    shared_storage  <-  nodes    <----------------  server

A module of the lower four packages is pure unless it lies in `adapters/`: it may not reach for the
disk, the network, a clock, chance, threads or an engine.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

MAY_IMPORT = {
    "shared_storage": set[str](),
    "context": {"shared_storage"},
    "nodes": {"shared_storage"},
    "ai_bridge": {"context", "shared_storage"},
    "server": {"ai_bridge", "context", "nodes", "shared_storage"},
    "app": {"ai_bridge", "context", "nodes", "server", "shared_storage"},
}
# What a pure module may not import.
EDGES = """
    asyncio concurrent ctypes eventlet fcntl flask gevent http multiprocessing os psutil random
    requests secrets select selectors shutil socket sqlite3 sqlite_utils ssl subprocess tempfile
    threading time torch urllib.request uuid websocket websockets
"""
# Pure by place, with a reason to reach out all the same.
EXCEPTIONS = {
    "ai_bridge/asking.py": {"asyncio"},  # waits for one model; does no I/O of its own
    "ai_bridge/bridge.py": {"asyncio"},  # waits for models; does no I/O of its own
    "ai_bridge/started.py": {"asyncio"},  # waits for models; does no I/O of its own
    "context/client.py": {"requests"},  # the HTTP client that users import
    "context/client_nodes.py": {"requests"},
    "context/client_retries.py": {"random", "time"},
    "nodes/leadership.py": {"asyncio"},  # tells waiting tasks of a change; does no I/O
}
# Heavy or patching libraries, and the only places that may touch them.
ONLY_IN = {
    "torch": (
        "ai_bridge/adapters/learner.py",
        "ai_bridge/adapters/user_networks.py",
        "ai_bridge/adapters/worker.py",
        "server/semantic/encoder.py",
        "server/semantic/worker.py",
    ),
    "eventlet": ("server/runtime.py",),
    "gevent": ("server/runtime.py",),
}


def modules() -> list[str]:
    """Paths of the program's modules, relative to the root."""
    found = [
        ROOT / "app.py",
        *(path for name in MAY_IMPORT for path in (ROOT / name).rglob("*.py")),
    ]
    return sorted(str(path.relative_to(ROOT)) for path in found if path.exists())


def is_pure(path: str) -> bool:
    """Whether the module may only compute."""
    folders = path.split("/")[:-1]
    return bool(folders) and folders[0] != "server" and "adapters" not in folders


def is_edge(name: str) -> bool:
    """Whether a dotted name is, or lies in, what a pure module may not import."""
    return any(f"{name}.".startswith(f"{edge}.") for edge in EDGES.split())


def imported(tree: ast.Module) -> Iterator[tuple[ast.stmt | ast.expr, str]]:
    """Every import and what it names; a relative one begins with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from ((node, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            name = node.args[0]
            yield node, str(name.value) if isinstance(name, ast.Constant) else ""


def hidden(tree: ast.Module) -> Iterator[ast.stmt]:
    """Imports inside functions and classes."""
    for scope in ast.walk(tree):
        if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for node in ast.walk(scope):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    yield node


def typing_only(tree: ast.Module) -> set[ast.AST]:
    """Imports under `if TYPE_CHECKING`, which never run."""
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    guarded = [block for block in blocks if ast.unparse(block.test).endswith("TYPE_CHECKING")]
    return {node for block in guarded for node in ast.walk(block)}


def violations(path: str, source: str) -> list[str]:
    """What this module may not do, a line each."""
    tree = ast.parse(source)
    package = path.removesuffix(".py").split("/")[0]
    found = [f"{path}:{node.lineno} imports inside a function or class" for node in hidden(tree)]
    never_run = typing_only(tree)
    for node, name in imported(tree):
        root, where = name.split(".")[0], f"{path}:{node.lineno} imports {name}"
        if name.startswith("."):
            found.append(f"{where}: imports are absolute")
        elif root in MAY_IMPORT and root not in MAY_IMPORT[package] | {package}:
            found.append(f"{where}: {package} may not know {root}")
        if node in never_run:
            continue
        if root in ONLY_IN and not path.startswith(ONLY_IN[root]):
            found.append(f"{where}: {root} belongs to {' or '.join(ONLY_IN[root])}")
        if is_pure(path):
            if is_edge(name) and root not in EXCEPTIONS.get(path, set()):
                found.append(f"{where}: the module is pure, {root} belongs into adapters/")
            if root in MAY_IMPORT and "adapters" in name.split("."):
                found.append(f"{where}: the module is pure and knows no engine")
    return found


def test_every_module_keeps_to_its_layer() -> None:
    found = [
        line for path in modules() for line in violations(path, (ROOT / path).read_text("utf-8"))
    ]
    assert not found, "\n" + "\n".join(found)


def test_every_exception_is_still_needed() -> None:
    for path, names in EXCEPTIONS.items():
        roots = {name.split(".")[0] for _, name in imported(ast.parse((ROOT / path).read_text()))}
        assert names <= roots, f"{path} no longer imports {names - roots}"


@pytest.mark.parametrize(
    ("path", "source", "word"),
    [
        ("context/x.py", "import nodes.term", "may not know nodes"),
        ("nodes/x.py", "from context import items", "may not know context"),
        ("shared_storage/adapters/x.py", "import server.config", "may not know server"),
        ("server/x.py", "import app", "may not know app"),
        ("context/x.py", "import time", "is pure"),
        ("context/feeds/x.py", "from os.path import join", "is pure"),
        ("context/x.py", "from context.adapters import log_sqlite", "knows no engine"),
        ("context/x.py", "from context import adapters", "knows no engine"),
        ("context/x.py", "from . import items", "absolute"),
        ("context/adapters/x.py", "def f():\n    import zlib", "inside a function"),
        ("server/agent/x.py", "import eventlet.wsgi", "belongs to server/runtime.py"),
        ("server/x.py", "importlib.import_module('eventlet')", "belongs to server/runtime.py"),
        (
            "ai_bridge/adapters/x.py",
            "from torch import nn",
            "belongs to ai_bridge/adapters/learner",
        ),
    ],
)
def test_the_reader_sees_each_kind_of_violation(path: str, source: str, word: str) -> None:
    (line,) = violations(path, source)
    assert word in line


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("context/adapters/x.py", "import sqlite3, time\nfrom context.items import Item"),
        ("context/x.py", "from urllib.parse import quote"),
        ("context/x.py", "if TYPE_CHECKING:\n    from asyncio import Future"),
        ("server/x.py", "import time\nfrom nodes.adapters import children"),
        ("server/runtime.py", "importlib.import_module('eventlet')"),
        ("app.py", "import os\nfrom server import node"),
    ],
)
def test_the_reader_lets_the_rest_pass(path: str, source: str) -> None:
    assert violations(path, source) == []


def test_the_agent_process_loads_nothing_heavy_that_it_may_never_need() -> None:
    heavy = {*ONLY_IN, "pandas", "pyarrow", "scipy"}
    agent = [path for path in modules() if path.startswith("server/agent/")]
    names = [path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in agent]
    check = f"import sys, {', '.join(names)}; print({heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("set()\n", 0), done.stderr
