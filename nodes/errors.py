"""What can go wrong between nodes and inside one.

NodeError
├── DataDirInUse     409  the operator: two nodes on one data directory
├── DataDirUnusable  507  the operator or the disk: the directory cannot be written
├── TermUnreadable   500  the disk: the term file is not what a node wrote
├── PeersWrong       400  the operator: the peers' addresses do not fit together
├── SecretMissing    400  the operator: a cluster without its shared secret
├── EngineMissing    500  the operator: no nats-server that is new enough
├── UnknownNode      404  the caller: no node of that name was heard of
├── HandOffRefused   409  the caller: that node cannot lead now; retry where it is to come back
├── BadHeartbeat     400  another program or version: the bytes are no heartbeat or lease
└── LeaseUnreachable 503  the engine: a majority does not answer; retry
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


class PeersWrong(NodeError):
    """The addresses of the peers are malformed, clash, or leave this node out."""

    code = "peers_wrong"
    status = 400


class SecretMissing(NodeError):
    """A cluster needs the secret that its nodes share."""

    code = "secret_missing"
    status = 400


class EngineMissing(NodeError):
    """There is no nats-server on this machine that can be used."""

    code = "engine_missing"


class NodeRuns(NodeError):
    """A node that is to be replaced still runs."""

    code = "node_runs"
    status = 409


class UnknownNode(NodeError):
    """No node of that name was heard of."""

    code = "not_found"
    status = 404


class HandOffRefused(NodeError):
    """The wanted node cannot lead now, or did not take the lead in time."""

    code = "hand_off_refused"
    status = 409
    retryable = True


class BadHeartbeat(NodeError):
    """The bytes are not what a node tells of itself."""

    code = "bad_heartbeat"
    status = 400


class LeaseUnreachable(NodeError):
    """The store of the lease did not answer; whether it took the change is unknown."""

    code = "lease_unreachable"
    status = 503
    retryable = True
