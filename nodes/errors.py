"""What can go wrong between nodes and inside one.

NodeError
├── DataDirInUse     409  the operator: two nodes on one data directory
├── DataDirUnusable  507  the operator or the disk: the directory cannot be written
└── TermUnreadable   500  the disk: the term file is not what a node wrote
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


class DataDirUnusable(NodeError):
    """The data directory cannot be created, read or written."""

    code = "data_dir_unusable"
    status = 507


class TermUnreadable(NodeError):
    """The persisted term is damaged; guessing one could let two reigns share it."""

    code = "term_unreadable"
