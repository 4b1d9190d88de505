"""A cluster whose engines talk over TLS, each with a certificate of its own."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path

import pytest
import trustme

from nodes.engine import Address
from tests.cluster import Cluster
from tests.integration.test_rejoin import BODY, fill
from tests.integration.test_replace import heir
from tests.node_process import LOOPBACK, wait_for


def given(authority: trustme.CA, folder: Path) -> Mapping[str, str]:
    """Settings of a node with a new certificate."""
    folder.mkdir()
    made = authority.issue_cert(LOOPBACK)
    cert, key, ca = folder / "cert.pem", folder / "key.pem", folder / "ca.pem"
    for blob in made.cert_chain_pems:
        blob.write_to_path(cert, append=True)
    made.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    names = ("CERT", "KEY", "CA")
    files = zip(names, (cert, key, ca), strict=True)
    return {f"CONTEXT_CLUSTER_TLS_{name}": str(file) for name, file in files}


def greet(port: int, files: Mapping[str, str] | None, *, route: bool) -> bytes:
    """Shake hands as NATS clients and routes do; the beginning of what comes after it.

    Raises ssl.SSLError or ConnectionError where the engine refuses.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if files:
        context.load_cert_chain(files["CONTEXT_CLUSTER_TLS_CERT"], files["CONTEXT_CLUSTER_TLS_KEY"])
    with socket.create_connection((LOOPBACK, port), timeout=10) as sock:
        if not route:  # which begins with the handshake
            told = json.loads(sock.recv(1 << 16).removeprefix(b"INFO "))
            assert (told["tls_required"], told["tls_verify"]) == (True, True)
        with context.wrap_socket(sock) as safe:
            safe.sendall(b"PING\r\n")
            return safe.recv(1)


def test_a_cluster_over_tls(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    three = Cluster(tmp_path)
    for n, node in enumerate(three.nodes):
        node.env.update(given(authority, tmp_path / f"tls{n}"))
    try:
        three.start()
        fill(three[three.leader()], 0, BODY)

        engine = Address(LOOPBACK, three[0].port)
        own, others = given(authority, tmp_path / "own"), given(stranger, tmp_path / "stranger")
        for route, port in enumerate((engine.client_port, engine.route_port)):
            assert greet(port, own, route=bool(route))
            for files in (None, others):
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    greet(port, files, route=bool(route))

        first = three.leader()
        term = three.told(first)["term"]
        three[first].kill9()
        left = [n for n in range(3) if n != first]
        second = three.leader(among=left, above=term)
        fill(three[second], BODY, BODY)

        shutil.rmtree(three[first].data_dir)
        new = heir(three, tmp_path, 3, of=first)
        three.nodes.append(new)
        new.start()
        three.has(3, 2 * BODY - 1)
        wait_for(lambda: "every stream has its replicas again" in new.log, "three replicas", 60)
    finally:
        three.stop()
