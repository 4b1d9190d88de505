"""The settings of a node: defaults, then a file, then `CONTEXT_*` variables, then flags.

A setting is one field of `Settings` with one `Kind` that says what is allowed; the file, the
environment and the flags all pass through it. `docs/settings.md` lists every one.
"""

from __future__ import annotations

import difflib
import re
import socket
import tomllib
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

import msgspec
import yaml

from nodes.capabilities import PARTS
from nodes.membership import Timings
from server.setting_kinds import (
    Choice,
    Flag,
    Kind,
    ListOf,
    Number,
    Numbers,
    Pairs,
    PathOf,
    RetentionTables,
    Secret,
    Tables,
    Text,
)

PREFIX = "CONTEXT_"
# Variables with this prefix that are no settings: the supervisor's own.
INTERNAL = frozenset({"READY_FD", "PARENT_FD", "PARENT_PID", "SETTINGS", "WEB_WORKER"})

ASYNC_MODES = ("eventlet", "threading", "gevent")
DATA_DIR = Path("data")


class SettingsError(Exception):
    """A wrong setting; the text is one line with its name, value, origin, and what is allowed."""


def _setting(kind: Kind, default: Any, meaning: str) -> Any:
    metadata = {"kind": kind, "meaning": meaning}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def _host_slug() -> str:
    """This machine's name as a node id."""
    name = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().partition(".")[0].lower())
    return name.strip("-")[:63] or "node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that an operator can set on one node."""

    node_id: str = _setting(
        Text(r"[a-z0-9][a-z0-9-]{0,62}", "1 to 63 of a-z, 0-9 and -, not starting with -"),
        _host_slug,
        "Name of this node among its peers; the default is the machine's name.",
    )
    host: str = _setting(
        Text(r"\S+", "a host name or address"),
        "127.0.0.1",
        "Address to listen on; `0.0.0.0` is every network of the machine.",
    )
    port: int = _setting(
        Number(0, 65535), 5000, "Port of the web interface; 0 takes any free port."
    )
    data_dir: Path = _setting(  # noqa: RUF009 - makes a field, as `field` does
        PathOf(), DATA_DIR, "Folder of the log, its index and the node's state."
    )
    feeds: tuple[str, ...] = _setting(
        ListOf(r"[a-z]+(:[^\s;]+)?", "feeds such as simulated or binance:BTC/USDT,ETH/USDT", " ;"),
        (),
        "Live sources to read: `simulated`, or `EXCHANGE:PAIR,...`; several are separated by "
        "spaces or `;`.",
    )
    peers: tuple[str, ...] = _setting(
        ListOf(r"[^\s,]+:\d{1,5}", "HOST:PORT,...", " ,"),
        (),
        "Web addresses of all nodes, this one included; empty is a single node.",
    )
    nats_url: str = _setting(
        Text(r"|(nats|tls)://[^\s,]+(,(nats|tls)://[^\s,]+)*", "nats://HOST:PORT,..."),
        "",
        "An existing NATS cluster to use; empty runs an engine beside this node.",
    )
    stream_max_gb: int = _setting(
        Number(1, 1 << 20),
        256,
        "Size in GiB at which the cluster's stream drops its oldest messages; see "
        "docs/operations.md for what that means to a node which was away for so long.",
    )
    witness: bool = _setting(
        Flag(), False, "Whether to run the engine only: a third vote without a node's work."
    )
    replace: str = _setting(
        Text(r"|[a-z0-9][a-z0-9-]{0,62}", "the id of a node"),
        "",
        "Node of the cluster that is gone for good and whose place this one takes at its first "
        "start; needs `peers`.",
    )
    cluster_secret: str = _setting(
        Secret(16, 512),
        "",
        "What the nodes of a cluster share to know each other; needed with `peers`. Give it in "
        "`CONTEXT_CLUSTER_SECRET` or the file.",
    )
    cluster_tls_cert: str = _setting(
        Text(r".*", "a file"), "", "Certificate (PEM) of this node's engine; empty is without TLS."
    )
    cluster_tls_key: str = _setting(
        Text(r".*", "a file"), "", "Private key (PEM) of that certificate."
    )
    cluster_tls_ca: str = _setting(
        Text(r".*", "a file"), "", "Authority (PEM) that signed the certificates of all engines."
    )
    found_after_s: float = _setting(
        Number(0, 86400, whole=False),
        15.0,
        "Seconds that a node without items waits for one with items, before it founds a cluster.",
    )
    observer: bool = _setting(
        Flag(), False, "Whether this node never leads: it follows, answers reads and streams."
    )
    heartbeat_s: float = _setting(
        Number(0.05, 600, whole=False), 0.5, "Seconds between the heartbeats of a node."
    )
    suspect_s: float = _setting(
        Number(0.1, 3600, whole=False),
        1.5,
        "Seconds without a heartbeat until a node is suspect; above `heartbeat_s`.",
    )
    dead_s: float = _setting(
        Number(0.2, 3600, whole=False),
        3.0,
        "Seconds without a heartbeat until a node counts as dead; above `suspect_s`.",
    )
    score_weights: Mapping[str, float] = _setting(
        Numbers(PARTS, 0, 100),
        dict,
        "How much each measurement counts for the score by which the best machine leads; those "
        "not named keep the weight in docs/operations.md.",
    )
    hand_off_better_by: float = _setting(
        Number(0, 1000, whole=False),
        0.2,
        "Share by which another node's score must be above the leader's to take over.",
    )
    hand_off_after_s: float = _setting(
        Number(0, 86400, whole=False), 60.0, "Seconds for which it must have been better."
    )
    hand_off_every_s: float = _setting(
        Number(0, 10_000_000, whole=False), 600.0, "Least seconds between two such hand-offs."
    )
    async_mode: str = _setting(
        Choice(*ASYNC_MODES), "eventlet", "How the web process serves many connections."
    )
    web_workers: int = _setting(
        Number(1, 64),
        1,
        "Web processes that share the port, so that delivery uses as many cores; more than one "
        "needs eventlet.",
    )
    health_interval_s: float = _setting(
        Number(0, 86400, whole=False), 5.0, "Seconds between samples of the machine; 0 takes none."
    )
    search_cache_mb: int = _setting(
        Number(1, 1 << 20), 32, "Memory in MiB for decompressed blocks while searching."
    )
    search_workers: int = _setting(Number(1, 64), 2, "Threads that search at the same time.")
    max_body_bytes: int = _setting(
        Number(1024, 64 << 20), 16 << 20, "Largest request body in bytes, also when decompressed."
    )
    ingest_queue_mb: int = _setting(
        Number(1, 1 << 16),
        64,
        "Memory in MiB for items not yet durable; beyond it, senders get `rate_limited`.",
    )
    tokenizers: Mapping[str, str] = _setting(
        Pairs("model=tokenizer.json,..."),
        dict,
        "Tokenizer file of each model, as `model=path,...`; a model without one is estimated.",
    )
    models: Mapping[str, Any] = _setting(
        Tables("tables [models.NAME] with a kind, or the same as JSON"),
        dict,
        "Models to ask beside the built-in ones, each a table; see docs/models.md.",
    )
    model_modules: tuple[str, ...] = _setting(
        ListOf(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", "Python modules such as my_models.fast", " ,"),
        (),
        "Python modules to import at the start; they register classes for models of kind `custom`.",
    )
    api_keys: Mapping[str, str] = _setting(
        Pairs("VARIABLE=https://address,..."),
        dict,
        "Environment variables with keys that models registered over REST may name, each with the "
        "address that the key may be sent to.",
    )
    consensus: str = _setting(
        Choice("learned", "static"),
        "learned",
        "Whether outcomes move the models' weights; `static` keeps the configured ones.",
    )
    coverage: float = _setting(
        Number(0.5, 0.99, whole=False),
        0.9,
        "Share of decisions whose prediction set is to hold what turns out right; one that needs "
        "several is an abstention.",
    )
    outcome_horizon_s: float = _setting(
        Number(0, 2_592_000, whole=False),
        0.0,
        "Seconds of event time after which the price judges a decision by itself; 0 leaves that to "
        "the outcome call.",
    )
    outcome_costs: float = _setting(
        Number(0, 1, whole=False),
        0.0,
        "Costs of a round trip, as a fraction, that a return has to earn before buy or sell was "
        "right.",
    )
    outcome_dead_band: float = _setting(
        Number(0, 1, whole=False),
        0.0005,
        "Return, as a fraction, up to which hold was right.",
    )
    trading_modes: Mapping[str, Any] = _setting(
        Tables("tables [trading_modes.NAME] with all fields of a mode, or the same as JSON"),
        dict,
        "Modes of trading beside the built-in ones, each a table; see docs/trading.md.",
    )
    trading_capital: float = _setting(
        Number(1, 1e9, whole=False),
        10_000.0,
        "What a new trading account begins with, in its currency; limits are shares of it.",
    )
    trading_exchange: str = _setting(
        Text(r"|[a-z0-9]{2,40}", "ccxt's name of an exchange, such as binance"),
        "",
        "Exchange that the broker `ccxt` trades at; needs `script/setup trading`.",
    )
    trading_exchange_url: str = _setting(
        Text(r"|https?://[^\s/]+", "http://HOST:PORT"),
        "",
        "Send the sandbox's requests to this address instead, such as an exchange's simulator; "
        "never used with real money.",
    )
    trading_key: str = _setting(
        Secret(1, 512), "", "Key of the exchange's API. Give it in `CONTEXT_TRADING_KEY`."
    )
    trading_secret: str = _setting(
        Secret(1, 512), "", "Secret of that key. Give it in `CONTEXT_TRADING_SECRET`."
    )
    trading_password: str = _setting(
        Secret(1, 512), "", "Passphrase of that key, where the exchange wants one."
    )
    live_trading: bool = _setting(
        Flag(), False, "Whether sessions on this node may trade with real money at all."
    )
    torch_worker: bool = _setting(
        Flag(), True, "Whether to start the process of the local torch model."
    )
    torch_device: str = _setting(
        Choice("auto", "cpu", "cuda"),
        "auto",
        "Where added torch models calculate; `auto` is a GPU where there is one.",
    )
    torch_threads: int = _setting(
        Number(1, 256), 1, "CPU threads of one calculation in the torch process."
    )
    semantic: bool = _setting(
        Flag(),
        False,
        "Whether to search by meaning too: starts one more process, which needs "
        "`script/setup semantic` and 400 MB of memory.",
    )
    cors_origins: tuple[str, ...] = _setting(
        ListOf(r"https?://[^\s,/*]+", "origins such as https://example.org", " ,"),
        (),
        "Other sites whose pages may call this node from a browser.",
    )
    allowed_hosts: tuple[str, ...] = _setting(
        ListOf(r"\.?[\w-]+(\.[\w-]+)*", "host names, or .example.org for all below it", " ,"),
        (),
        "Further names by which this node may be called, such as a proxy's; `localhost`, "
        "addresses, this machine's name, `host` and `peers` always may.",
    )
    api_token: str = _setting(
        Secret(16, 512),
        "",
        "Who calls must bring this token; empty lets in whoever can connect. Give it in "
        "`CONTEXT_API_TOKEN` or the file; see docs/delivery.md.",
    )
    webhook_allow: tuple[str, ...] = _setting(
        ListOf(r"[\w.*:-]+", "host patterns such as *.example.org", " ,"),
        (),
        "Hosts that webhooks may be sent to; empty allows every one that this machine can reach.",
    )
    webhook_attempts: int = _setting(
        Number(1, 1000),
        20,
        "How often to try a webhook's delivery before it is given up, with pauses that grow to "
        "five minutes.",
    )
    webhook_timeout_s: float = _setting(
        Number(0.1, 300, whole=False), 10.0, "Seconds that a webhook's receiver may take to answer."
    )
    max_delay_ms: float = _setting(
        Number(0, 1000, whole=False),
        10.0,
        "Milliseconds that a busy node may hold items back from subscribers, to send more of them "
        "together; 0 sends each batch by itself.",
    )
    max_lag_items: int = _setting(
        Number(0, 1 << 40),
        0,
        "Items by which a live subscriber may fall behind before it is told of a gap and goes on "
        "with what is new; 0 lets it read everything at its own pace.",
    )
    stall_s: float = _setting(
        Number(1, 86400, whole=False),
        60.0,
        "Seconds after which a subscriber that accepts nothing is disconnected.",
    )
    retention: Mapping[str, Mapping[str, Any]] = _setting(
        RetentionTables(
            "tables [retention.TYPE] with max_age_s, max_items or max_bytes, or the same as JSON"
        ),
        dict,
        "How long items are kept, by type; `default` is for types without a rule of their own. "
        "Empty keeps everything.",
    )
    retention_interval_s: float = _setting(
        Number(0.1, 86400, whole=False),
        60.0,
        "Seconds between looking for what retention and budget no longer keep.",
    )
    disk_budget_mb: int = _setting(
        Number(0, 1 << 30),
        0,
        "MiB that the data folder may take; beyond it the oldest blocks go. 0 is without a bound.",
    )
    disk_reserve_mb: int = _setting(
        Number(0, 1 << 30),
        256,
        "MiB that stay free on the disk: with less, nothing is taken in (507 `storage_full`).",
    )
    log_level: str = _setting(
        Choice("debug", "info", "warning", "error"), "info", "Least important lines to log."
    )
    log_format: str = _setting(
        Choice("auto", "json", "text"),
        "auto",
        "How to log; `auto` is text on a terminal and JSON lines elsewhere.",
    )
    request_log: bool = _setting(Flag(), False, "Whether to log every request.")

    def to_json(self) -> str:
        """These settings as text for a child process."""
        return msgspec.json.encode(self, enc_hook=str).decode()

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """The settings that `to_json` wrote."""
        return msgspec.json.decode(text, type=cls, dec_hook=lambda kind, value: kind(value))


def load(
    flags: Mapping[str, Any], environ: Mapping[str, str], config_path: str | Path | None = None
) -> Settings:
    """Resolve the settings of all layers; a later one wins.

    `flags` holds field names; a flag that is None was not given. Raises SettingsError with one
    line for the first wrong setting.
    """
    values: dict[str, Any] = {}
    if config_path is not None:
        path = Path(config_path)
        for key, raw in _read_file(path).items():
            values[key] = _parse(_field(key, path), raw, f"in {path}")
    for each in fields(Settings):
        variable = PREFIX + each.name.upper()
        if variable in environ:
            values[each.name] = _parse(each, environ[variable], f"from {variable}")
        if flags.get(each.name) is not None:
            values[each.name] = _parse(each, flags[each.name], "from the command line")
    settings = Settings(**values)
    _check_timings(settings)
    if settings.replace and (not settings.peers or settings.nats_url):
        raise SettingsError(
            f"replace={settings.replace!r}: must be empty without own engines (peers)"
        )
    return settings


def _check_timings(settings: Settings) -> None:
    try:
        Timings(settings.heartbeat_s, settings.suspect_s, settings.dead_s)
    except ValueError as exc:
        raise SettingsError(str(exc)) from None


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """One line for each `CONTEXT_*` variable that sets nothing, probably misspelt.

    They are no error: other programs may use the prefix too.
    """
    known = {each.name.upper() for each in fields(Settings)}
    names = (name.removeprefix(PREFIX) for name in sorted(environ) if name.startswith(PREFIX))
    return [
        f"{PREFIX}{name} sets nothing{_guess(name, known, PREFIX)}"
        for name in names
        if name not in known | INTERNAL
    ]


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".toml":
            content: object = tomllib.loads(text)
        elif path.suffix in (".yaml", ".yml"):
            content = yaml.safe_load(text) or {}
        else:
            raise SettingsError(f"config={str(path)!r}: must end in .toml, .yaml or .yml")
    except OSError as exc:
        raise SettingsError(f"config={str(path)!r}: cannot be read: {exc.strerror}") from exc
    except (ValueError, yaml.YAMLError) as exc:
        why = " ".join(str(exc).split())
        raise SettingsError(f"config={str(path)!r}: not valid: {why}") from exc
    if not isinstance(content, dict):
        raise SettingsError(f"config={str(path)!r}: must hold `name: value` pairs")
    return content


def _field(name: str, path: Path) -> Field[Any]:
    known = {each.name: each for each in fields(Settings)}
    if name not in known:
        raise SettingsError(f"{name} in {path}: no such setting{_guess(name, set(known), '')}")
    return known[name]


def _parse(each: Field[Any], raw: Any, origin: str) -> Any:
    kind: Kind = each.metadata["kind"]
    try:
        return kind.parse(raw)
    except (TypeError, ValueError):
        shown = repr(raw) if len(repr(raw)) <= 80 else repr(raw)[:77] + "..."
        shown = "(hidden)" if isinstance(kind, Secret) else shown
        raise SettingsError(f"{each.name}={shown} {origin}: must be {kind.allowed}") from None


def _guess(name: str, known: set[str], prefix: str) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""
