"""What can go wrong between nodes and inside one.

NodeError
├── DataDirInUse    409  the operator: two nodes on one data directory
└── TermUnreadable  500  the node's disk: the term file holds no number
"""

from __future__ import annotations

from typing import ClassVar


class NodeError(Exception):
    """Base of this package's errors; becomes one problem+json answer."""

    code: ClassVar[str] = "node_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class DataDirInUse(NodeError):
    """Another running node owns this data directory."""

    code = "data_dir_in_use"
    status = 409


class TermUnreadable(NodeError):
    """The persisted term is not a number; guessing one could let two reigns share it."""

    code = "term_unreadable"
