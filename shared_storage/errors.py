"""What can go wrong with stored state.

StorageError
├── VersionConflict  409  nobody: someone else changed the value first
├── LayoutTooNew     500  the operator: a newer program has written this file
├── BadMessage       500  the stream: bytes that no node wrote; every node leaves them out
├── NewerMessage     500  the operator: a newer node wrote this message; upgrade this one
├── WrongSequence    409  nobody: another message is at that place of the stream
├── StaleTerm        409  this node: a newer leader has written
├── NoBlob           404  the asker: no blob has that digest
├── BlobTooLarge     413  the sender
├── BlobDiffers      422  the sender, or the disk: the bytes have another digest
├── HistoryGone      410  the operator: the stream no longer has what this node needs next
├── OutcomeUnknown   503  the cluster: the write may or may not have been stored
├── CopyFailed       503  this node: its copy takes nothing in (full disk?); nothing was stored
└── StreamDown       503  the cluster: no majority answers; nothing was stored
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


class NoBlob(StorageError):
    """No blob has that digest."""

    code = "not_found"
    status = 404


class BlobTooLarge(StorageError):
    """More bytes than a blob may have."""

    code = "body_too_large"
    status = 413


class BlobDiffers(StorageError):
    """The bytes do not have the digest that they should have."""

    code = "blob_differs"
    status = 422


class BadMessage(StorageError):
    """Bytes in the stream that are no message of this program."""

    code = "bad_message"


class NewerMessage(StorageError):
    """A message that a newer program wrote; a node that leaves it out would differ from others."""

    code = "newer_message"


class WrongSequence(StorageError):
    """The stream's newest message is not the expected one."""

    code = "wrong_sequence"
    status = 409
    retryable = True


class StaleTerm(StorageError):
    """A newer leader has written to the stream."""

    code = "fenced_out"
    status = 409
    retryable = True


class HistoryGone(StorageError):
    """The stream has dropped the messages that would follow what this node has applied."""

    code = "history_gone"
    status = 410


class OutcomeUnknown(StorageError):
    """No answer came: the write may have been stored. The same request again finds out."""

    code = "outcome_unknown"
    status = 503
    retryable = True


class CopyFailed(StorageError):
    """This node's copy cannot take in what is in the stream; nothing of the request was stored."""

    code = "copy_failed"
    status = 503
    retryable = True


class StreamDown(StorageError):
    """The engine cannot be reached, or has no majority; nothing of the request was stored."""

    code = "stream_down"
    status = 503
    retryable = True
