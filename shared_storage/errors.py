"""What can go wrong with stored state.

StorageError
├── VersionConflict  409  nobody: someone else changed the value first
└── LayoutTooNew     500  the operator: a newer program has written this file
"""

from __future__ import annotations

from typing import ClassVar


class StorageError(Exception):
    """Base of this package's errors; becomes one problem+json answer."""

    code: ClassVar[str] = "storage_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class VersionConflict(StorageError):
    """The value's version is not the expected one; read it again and decide anew."""

    code = "version_conflict"
    status = 409
    retryable = True


class LayoutTooNew(StorageError):
    """A newer program has written this file."""

    code = "layout_too_new"
