"""Builds that break a promise. Python imports this file at its start where `PYTHONPATH` names its
folder; the variable `BROKEN_BUILD` names the breakage. Nothing is imported early: a module is
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
    """All of every fifth batch is acknowledged; its first item is stored in place of the last."""
    whole, seen = module.SqliteLog._append_one, [0]

    def broken(self: Any, draft: Any, term: int, now: float) -> Any:
        receipt = whole(self, draft, term, now)
        seen[0] += 1
        if seen[0] % 5 == 0 and not receipt.replayed:
            first, *rest = draft.text.splitlines(keepends=True)
            text = b"".join([first, *rest[:-1], first])
            self._db.execute(
                "UPDATE batches SET codec = 0, body = ? WHERE first_offset = ?",
                (text, receipt.first_offset),
            )
        return receipt

    module.SqliteLog._append_one = broken


def _at_the_hand_over(module: Any, act: Callable[[Any, Any], None]) -> None:
    """Act once for each subscription, when it goes from history on to what is live."""
    history, live = module.Subscription._from_log, module.Subscription._from_ring

    def from_log(self: Any) -> Any:
        self.was_behind = True
        return history(self)

    def from_ring(self: Any, entries: Any) -> Any:
        if getattr(self, "was_behind", False):
            self.was_behind = False
            act(self, entries)
            return module.Delivery([], self.offset)
        return live(self, entries)

    module.Subscription._from_log, module.Subscription._from_ring = from_log, from_ring


def skip_at_the_hand_over(module: Any) -> None:
    """The first live batch after history is not delivered."""

    def act(subscription: Any, entries: Any) -> None:
        subscription.offset = entries[0].batch.last_offset

    _at_the_hand_over(module, act)


def repeat_at_the_hand_over(module: Any) -> None:
    """The last items of history are delivered once more."""

    def act(subscription: Any, entries: Any) -> None:
        subscription.offset = max(-1, subscription.offset - 10)

    _at_the_hand_over(module, act)


_MODULES = {
    acknowledge_before_commit: "context.adapters.log_sqlite",
    never_sync: "context.adapters.log_sqlite",
    forget_keys: "context.adapters.log_sqlite",
    forget_keys_at_the_start: "context.adapters.log_sqlite",
    lose_the_last_item: "context.adapters.log_sqlite",
    skip_at_the_hand_over: "server.live",
    repeat_at_the_hand_over: "server.live",
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
    if _breakage.__name__ == os.environ.get("BROKEN_BUILD"):
        sys.meta_path.insert(0, _Breaker(_module, _breakage))
