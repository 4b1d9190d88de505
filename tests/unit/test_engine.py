"""The engine's derived ports, passwords and configuration."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.engine import (
    Address,
    EngineSettings,
    Tls,
    client_url,
    config_text,
    gives_up,
    is_new_enough,
    own_address,
    password,
    replicas,
    version_of,
)
from nodes.errors import PeersWrong

SECRET = "correct-horse-battery"


def told(*peers: str, tls: Tls | None = None) -> str:
    own, known = own_address(
        peers, Address.parse(peers[0]).port, peers[0].rpartition(":")[0].__eq__
    )
    store = PurePosixPath('/data "x"/engine')
    return config_text(
        EngineSettings(
            name="a", own=own, peers=known, secret=SECRET, host="127.0.0.1", store=store, tls=tls
        )
    )


@given(st.integers(1, 65535))
def test_derived_ports_are_ports_and_differ(port: int) -> None:
    address = Address("h", port)
    ports = {address.port, address.client_port, address.route_port}
    assert len(ports) == 3
    assert all(1 <= each <= 65535 for each in ports)


@pytest.mark.parametrize("text", ["", "h", "h:", ":5000", "h:0", "h:65536", "h:x", "h:-1"])
def test_a_malformed_address_is_refused_by_name(text: str) -> None:
    with pytest.raises(PeersWrong, match="is not HOST:PORT"):
        Address.parse(text)


def test_an_ipv6_address_keeps_its_brackets() -> None:
    address = Address.parse("[::1]:5000")
    assert (address.host, str(address)) == ("::1", "[::1]:5000")
    assert client_url(address) == "nats://[::1]:15000"


def test_a_node_finds_itself_by_its_port_and_then_by_its_host() -> None:
    same_machine = ("127.0.0.1:5000", "127.0.0.1:5001", "127.0.0.1:5002")
    assert own_address(same_machine, 5001, lambda host: False)[0].port == 5001
    machines = ("a:5000", "b:5000", "c:5000")
    assert own_address(machines, 5000, "b".__eq__)[0] == Address("b", 5000)
    for wrong in (5003, 5000):
        with pytest.raises(PeersWrong, match="own address once"):
            own_address(machines, wrong, lambda host: False)


def test_addresses_whose_engines_would_share_a_port_are_refused() -> None:
    with pytest.raises(PeersWrong, match="both need port 15000"):
        own_address(("h:5000", "h:15000"), 5000, lambda host: True)
    with pytest.raises(PeersWrong, match="both need port 5000"):
        own_address(("h:5000", "h:5000"), 5000, lambda host: True)


def test_the_configuration_syncs_always_and_names_the_other_engines_only() -> None:
    text = told("a:5000", "b:5000", "[::1]:6000")
    assert "sync_interval: always" in text
    assert "max_payload: 8388608" in text
    assert 'store_dir: "/data \\"x\\"/engine"' in text
    assert "@b:25000" in text
    assert "@[::1]:26000" in text
    assert "@a:25000" not in text
    assert SECRET not in text
    assert password(SECRET, "client") != password(SECRET, "route") != password("x", "route")
    assert "tls" not in text
    system = password(SECRET, "system")
    assert f'$SYS {{ users: [{{ user: system, password: "{system}" }}] }}' in text
    both = told("a:5000", "b:5000", tls=Tls("/c", "/k", "/a"))
    assert both.count('tls { cert_file: "/c", key_file: "/k", ca_file: "/a", verify: true') == 2
    assert "cluster {" not in told("a:5000")


def test_three_engines_keep_each_message_however_many_there_are() -> None:
    assert [replicas(count) for count in range(1, 9)] == [1, 2, 3, 3, 5, 5, 5, 5]


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("nats-server: v2.15.1", True),
        ("nats-server: v2.11.0", True),
        ("nats-server: v2.10.29", False),
        ("nats-server: v3.0.0-beta.1", True),
        ("", False),
    ],
)
def test_the_version_is_read_from_what_the_engine_prints(text: str, fits: bool) -> None:
    assert is_new_enough(version_of(text)) is fits


@pytest.mark.parametrize(
    ("line", "is_end"),
    [
        (b"[1] 2026/11/21 08:36:35 [ERR] JetStream out of resources, will be DISABLED", True),
        (b"[1] 2026/11/21 08:36:42 [ERR] RAFT [6DVFpukC - S-R3F] Critical write error: x", True),
        (b"[1] 2026/11/21 08:36:35 [WRN] JetStream cluster stream has NO quorum, stalled", False),
    ],
)
def test_an_engine_that_stores_nothing_more_says_so(line: bytes, is_end: bool) -> None:
    assert gives_up(line) is is_end
