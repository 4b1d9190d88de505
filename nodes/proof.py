"""How one node knows that another one passed a request on: a signature, never the secret itself.

    Context-Forwarded: 1 SENDER MILLISECONDS CALLER BODY-DIGEST SIGNATURE

The signature is HMAC-SHA256, under a key derived from the cluster secret, of the method, the path,
the query, the headers that change what a request means, and all the fields before it. The body is
signed by its SHA-256, so that a request can be judged before its body has come.

A request counts for `WINDOW_S` around the receiver's clock. Within it whoever reads the wire can
send the same request again, as with any token on a wire without TLS.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from nodes.engine import password
from nodes.errors import NodeError

HEADER = "Context-Forwarded"
WINDOW_S = 60.0
SIGNED = ("Idempotency-Key", "Content-Type", "Content-Encoding")
_VERSION = "1"


class BadProof(NodeError):
    """The signature is not that of a node of this cluster, or of something else."""

    code = "forbidden"
    status = 403


class ClocksDiffer(NodeError):
    """Signed by a node of this cluster, too long ago or in the future: nothing was done."""

    code = "clocks_differ"
    status = 503
    retryable = True


@dataclass(frozen=True, slots=True)
class Passed:
    """What a request says, apart from its body: of this the sender and the receiver must agree."""

    method: str
    path: str  # decoded, each byte one character, as WSGI gives it
    query: str
    headers: Mapping[str, str]  # those of `SIGNED` that are there


@dataclass(frozen=True, slots=True)
class Proof:
    """What a valid signature vouches for."""

    sender: str  # the node that passed the request on
    caller: str  # address of whoever asked that node
    digest: str  # of the body


class Proofs:
    """Signs and checks with the secret of one cluster."""

    def __init__(self, secret: str) -> None:
        self._key = password(secret, "forward").encode()

    def sign(self, what: Passed, body: bytes, *, sender: str, caller: str, now: float) -> str:
        """Value of the header; `now` is unix seconds."""
        said = (_VERSION, sender, str(int(now * 1000)), caller or "-", digest(body))
        return " ".join((*said, self._signature(what, said)))

    def check(self, header: str, what: Passed, *, now: float) -> Proof:
        """What the header proves; raises BadProof, ClocksDiffer.

        The body is still to be compared.
        """
        *said, signature = header.split(" ")
        right = self._signature(what, tuple(said))
        if not hmac.compare_digest(right.encode(), signature.encode("utf-8", "replace")):
            raise BadProof("this is not signed by a node of this cluster")
        _, sender, at, caller, body = said
        late_s = now - int(at) / 1000
        if abs(late_s) > WINDOW_S:
            raise ClocksDiffer(
                f"nothing was done: signed {late_s:.0f} s ago by the clock here, at most "
                f"{WINDOW_S:.0f} are allowed; compare the clocks of {sender} and this node"
            )
        return Proof(sender, "" if caller == "-" else caller, body)

    def _signature(self, what: Passed, said: tuple[str, ...]) -> str:
        headers = [what.headers.get(name, "") for name in SIGNED]
        text = msgspec.json.encode([what.method, what.path, what.query, headers, said])
        return hmac.digest(self._key, text, "sha256").hex()


def digest(body: bytes) -> str:
    """Digest of a body as the header tells it."""
    return hashlib.sha256(body).hexdigest()
