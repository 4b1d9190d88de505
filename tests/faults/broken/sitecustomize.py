"""Builds that break a promise. Python imports this file at its start where `PYTHONPATH` names its
folder; the variable `BROKEN_BUILD` names the breakages. Nothing is imported early: a module is
changed at the moment when the node itself has imported it.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _NoCommits:
    """A connection whose COMMIT does nothing: its one transaction goes on."""

    def __init__(self, db: Any) -> None:
        self._db = db

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def execute(self, sql: str, *args: Any) -> Any:
        if sql == "COMMIT" or (sql.startswith("BEGIN") and self._db.in_transaction):
            return None
        return self._db.execute(sql, *args)


def _at_the_start(log: Any, act: Callable[[Any], None]) -> None:
    start = log.__init__

    def broken(self: Any, *args: Any) -> None:
        start(self, *args)
        act(self)

    log.__init__ = broken


def acknowledge_before_commit(module: Any) -> None:
    """Answers are true only for a process that lives on."""

    def act(log: Any) -> None:
        log._db = _NoCommits(log._db)

    _at_the_start(module.SqliteLog, act)


def never_sync(module: Any) -> None:
    """Acknowledged is in the kernel's memory; only a power cut would tell."""
    _at_the_start(module.SqliteLog, lambda log: log._db.execute("PRAGMA synchronous=OFF"))


def forget_keys(module: Any) -> None:
    """Every repeat is stored again."""
    module.SqliteLog._known = lambda *_: None


def forget_keys_at_the_start(module: Any) -> None:
    """Keys live as long as the process: a repeat after a crash is stored again."""
    _at_the_start(module.SqliteLog, lambda log: log._db.execute("DELETE FROM keys"))


def lose_the_last_item(module: Any) -> None:
    """Of every fifth batch the log holds the first item in place of the last."""
    whole, seen = module._row, [0]

    def broken(batch: Any) -> Any:
        seen[0] += 1
        if seen[0] % 5:
            return whole(batch)
        first, *rest = batch.text.splitlines(keepends=True)
        return (*whole(batch)[:-2], 0, b"".join([first, *rest[:-1], first]))

    module._row = broken


def skip_the_hand_over_check(module: Any) -> None:
    """Whoever comes is live at once, also while it is behind."""
    module.Group.is_level = lambda *_: True


def repeat_at_the_hand_over(module: Any) -> None:
    """The last items of history are delivered once more."""
    settle, seen = module.Group.settle, set()

    def broken(self: Any, follower: Any) -> Any:
        if self.is_level(follower) and follower not in seen:
            seen.add(follower)
            follower.offset = max(-1, follower.offset - 10)
        return settle(self, follower)

    module.Group.settle = broken


def send_after_a_refusal(module: Any) -> None:
    """A frame that a connection did not take is taken for sent."""
    module.Connection.offer = lambda self, frame, whole=module.Connection.offer: (
        0 * whole(self, frame)
    )


def burst_after_a_refusal(module: Any) -> None:
    """The same, of a frame that goes to many."""
    module.Burst.offer = lambda self, frame, breathe, whole=module.Burst.offer: (
        0 * whole(self, frame, breathe)
    )


def no_fence(module: Any) -> None:
    """A new leader reads to the end of the stream, but leaves no mark there."""

    def broken(self: Any, term: int) -> None:
        with self.lock:
            self._to_tail()
            self.term = term

    module.Replica.fence = broken


def no_expected_sequence(module: Any) -> None:
    """Messages are appended wherever the stream ends; what came before is read afterwards."""
    replica, stream = module.Replica, "shared_storage.adapters.stream_jetstream"

    def put(self: Any, message: Any) -> bool:
        client = sys.modules[stream].JetStream
        whole = client._headers
        client._headers = lambda *_: {}
        try:
            sequence = self.stream.append(module.encode(message), expected=0)
        finally:
            client._headers = whole
        while self.applied < sequence:
            for each, data in self.stream.read(self.applied):
                self._apply(each, data)
        return True

    replica._put = put


def acknowledge_before_the_engine(module: Any) -> None:
    """Answers do not wait for the majority."""
    whole, under_way = module.JetStream._append, []

    async def broken(self: Any, message: bytes, expected: int) -> int:
        under_way.append(module.asyncio.ensure_future(whole(self, message, expected)))
        return expected + 1

    module.JetStream._append = broken


def slow_copy(module: Any) -> None:
    """No broken promise, but a slow disk: 5 messages a second."""
    whole = module.Replica._apply

    def broken(self: Any, *args: Any) -> None:
        module.time.sleep(0.2)
        whole(self, *args)

    module.Replica._apply = broken


def next_protocol(module: Any) -> None:
    """The next version of the program."""
    module.PROTOCOL += 1


def far_protocol(module: Any) -> None:
    """The version after that one: nobody here understands it."""
    module.PROTOCOL += 2


def renamed_field(module: Any) -> None:
    """The next version calls a note's `text` its `body`, and counts its characters."""

    def up(data: Any) -> Any:
        if "text" in data:
            data["body"] = data.pop("text")
            data["length"] = len(data["body"])
        return data

    def down(data: Any) -> Any:
        if "body" in data:
            data["text"] = data.pop("body")
            data.pop("length", None)
        return data

    module.CASTING.register("note", 1, up, down)


_MODULES = {
    next_protocol: "nodes.protocol",
    far_protocol: "nodes.protocol",
    renamed_field: "context.casting",
    slow_copy: "shared_storage.adapters.replica",
    no_fence: "shared_storage.adapters.replica",
    no_expected_sequence: "shared_storage.adapters.replica",
    acknowledge_before_the_engine: "shared_storage.adapters.stream_jetstream",
    acknowledge_before_commit: "context.adapters.log_sqlite",
    never_sync: "context.adapters.log_sqlite",
    forget_keys: "context.adapters.log_sqlite",
    forget_keys_at_the_start: "context.adapters.log_sqlite",
    lose_the_last_item: "context.adapters.log_sqlite",
    skip_the_hand_over_check: "server.groups",
    repeat_at_the_hand_over: "server.groups",
    send_after_a_refusal: "server.connections",
    burst_after_a_refusal: "server.burst",
}


class _Breaker(MetaPathFinder):
    """Runs the breakage right after its module."""

    def __init__(self, module: str, breakage: Callable[[ModuleType], None]) -> None:
        self._module, self._breakage = module, breakage

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec
        assert spec.loader
        intact = spec.loader.exec_module

        def broken(module: ModuleType) -> None:
            intact(module)
            self._breakage(module)

        spec.loader.exec_module = broken  # type: ignore[method-assign]
        return spec


for _breakage, _module in _MODULES.items():
    if _breakage.__name__ in os.environ.get("BROKEN_BUILD", "").split():
        sys.meta_path.insert(0, _Breaker(_module, _breakage))
