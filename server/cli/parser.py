"""The command line: its verbs and options, and which options go with which verb.

Every option is None (or False) where it was not given, so that a node's settings can come from
files and the environment instead, and an option beside the wrong verb is noticed.
"""

from __future__ import annotations

import argparse
import math
import re
import time
from collections.abc import Callable

from ai_bridge.chain import Head
from server.cli.timespec import parse_moment

MAX_HITS = 10_000
FORMATS = ("arrow", "csv", "ndjson")
DEFAULT_URL = "http://127.0.0.1:5000"
VERBS = (
    "node",
    "reindex",
    "verify_decisions",
    "backtest",
    "status",
    "search",
    "tail",
    "ai_decision",
    "export",
    "replay",
    "start_trading",
    "stop_trading",
    "emergency_stop",
    "interactive",
)
_ITEMS = {"type", "source", "symbol", "since", "until", "regex", "ignore_case", "limit"}
OPTIONS = {
    "node": {
        *("id", "host", "port", "data", "config", "feed", "peers", "web_workers", "async_mode"),
        *("health_interval", "nats", "witness", "replace", "live_trading", "coverage", "horizon"),
    },
    "reindex": {"data", "config", "json", "progress"},
    "verify_decisions": {"data", "config", "url", "json", "progress", "head"},
    "backtest": {"url", "json", "symbol", "horizon", "every", "costs", "limit", "plot"},
    "status": {"url", "json"},
    "search": {
        *("url", "json", "mode", "before", "context", "invert", "count", "deadline_ms"),
        *("follow", *_ITEMS),
    },
    "tail": {"url", "json", "query", "after", "invert", *_ITEMS},
    "export": {"url", "json", "format", "query", "invert", *_ITEMS} - {"limit"},
    "ai_decision": {"url", "json", "deadline_ms", "coverage", "horizon"},
    "replay": {"url", "json", "speed", "give_up_after"},
    "start_trading": {"url", "json", "symbol", "quote", "broker", "live_trading"},
    "stop_trading": {"url", "json"},
    "emergency_stop": {"url", "json"},
    "interactive": {"url"},
}
_USAGE = (
    "--node, --reindex, --verify-decisions, --backtest MODEL, --status, --search QUERY,\n"
    "       --tail, --export FILE, --ai-decision SYMBOL..., --replay FILE,\n"
    "       --start-trading MODE, --stop-trading, --emergency-stop or --interactive;\n"
    "       --help explains them"
)
EPILOG = """\
Exit status: 0 done, 1 the request failed, 2 wrong arguments, 3 no node reachable.

examples:
  python app.py --node --feed simulated
  python app.py --search '"symbol":"BTC/USDT"' --since -15m --limit 20
  python app.py --search ERROR --follow --json
  python app.py --tail --type trading_data --query 'price' --json
  python app.py --export ticks.csv --type trading_data --since -1h
  python app.py --replay ticks.ndjson.gz --speed 50
"""


def build_parser(
    parser_class: type[argparse.ArgumentParser] = argparse.ArgumentParser,
) -> argparse.ArgumentParser:
    """The whole command line; exactly one verb is required."""
    parser = parser_class(
        prog="app.py",
        usage="app.py VERB [options], where VERB is " + _USAGE,
        description="Run a node of the context media server, or talk to one.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    # So that `--since -15m` is a value: no option of ours begins with a digit.
    parser._negative_number_matcher = re.compile(r"-\d")
    _add_verbs(parser)
    _add_node(parser.add_argument_group("node (with --node)"))
    reindex = parser.add_argument_group("indexing anew (with --reindex)")
    reindex.add_argument(
        "--progress", action="store_true", help="lines of progress also where there is no terminal"
    )
    verify = parser.add_argument_group("verifying (with --verify-decisions)")
    verify.add_argument(
        "--head",
        type=_head,
        metavar="SEQ:HASH",
        help="an entry that was kept elsewhere and must be in the chain",
    )
    _add_backtest(parser.add_argument_group("judging (with --backtest, --ai-decision or --node)"))
    trading = parser.add_argument_group("trading (with --start-trading)")
    trading.add_argument("--broker", choices=("paper", "ccxt"), help="paper (default), or ccxt")
    trading.add_argument("--quote", metavar="CURRENCY", help="of the account, such as USDT")
    trading.add_argument(
        "--live-trading",
        action="store_true",
        default=None,
        help="with real money, after a typed confirmation; the node needs it with --node too",
    )
    _add_client(parser.add_argument_group("talking to a node"))
    _add_items(parser.add_argument_group("choosing items (with --search, --tail and --export)"))
    _add_search(parser.add_argument_group("searching (with --search)"))
    export = parser.add_argument_group("exporting (with --export)")
    export.add_argument(
        "--format",
        choices=FORMATS,
        help="else the end of FILE tells, .csv or .arrow; ndjson (default) is one item a line",
    )
    replay = parser.add_argument_group("replaying (with --replay)")
    replay.add_argument(
        "--speed", type=_number(0), metavar="N", help="times its own pace (1); 0 is unpaced"
    )
    replay.add_argument(
        "--give-up-after",
        type=_number(0),
        metavar="SECONDS",
        help="how long to repeat a request that fails (120)",
    )
    return parser


def misplaced(args: argparse.Namespace) -> str | None:
    """What is wrong where an option, or its value, is not for the verb it was given with."""
    verb = verb_of(args)
    if verb == "search" and (args.limit or 0) > MAX_HITS:
        return f"--limit must be at most {MAX_HITS} with --search (got {args.limit}); see --before"
    if args.follow and (args.before or args.context or args.count or args.mode):
        return "--follow goes with neither --before, --context, --count nor --mode"
    for name, value in sorted(vars(args).items()):
        if not _given(value) or name in VERBS or name in OPTIONS[verb]:
            continue
        homes = ", ".join(_flag(each) for each in VERBS if name in OPTIONS[each])
        return f"{_flag(name)} goes with {homes}, not with {_flag(verb)}"
    return None


def verb_of(args: argparse.Namespace) -> str:
    """The one verb that was asked for."""
    return next(verb for verb in VERBS if _given(getattr(args, verb)))


def _given(value: object) -> bool:
    return value is not None and value is not False


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _add_verbs(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_argument_group("verbs (exactly one)").add_mutually_exclusive_group(
        required=True
    )
    verbs.add_argument("--node", action="store_true", help="run a node until it is told to stop")
    verbs.add_argument(
        "--reindex",
        action="store_true",
        help="verify all blocks and make the n-grams again, while no node runs on --data",
    )
    verbs.add_argument(
        "--verify-decisions",
        action="store_true",
        help="walk the chain of all decisions and find any change, of a running node at --url, "
        "or of the files in --data while no node runs there",
    )
    verbs.add_argument(
        "--backtest",
        metavar="MODEL",
        help="have a model answer the recorded questions as of then, and judge it",
    )
    verbs.add_argument("--status", action="store_true", help="how the node and its cluster are")
    verbs.add_argument("--search", metavar="QUERY", help="grep the stored context, newest first")
    verbs.add_argument("--tail", action="store_true", help="follow context as it comes in")
    verbs.add_argument(
        "--export", metavar="FILE", help="write all that is stored, oldest first (- is stdout)"
    )
    verbs.add_argument(
        "--ai-decision", nargs="+", metavar="SYMBOL", help="have the models decide on symbols"
    )
    verbs.add_argument(
        "--replay", metavar="FILE", help="send recorded NDJSON (plain, gzip, zstd; - is stdin)"
    )
    verbs.add_argument(
        "--start-trading", metavar="MODE", help="act on decisions: conservative, balanced, ..."
    )
    verbs.add_argument(
        "--stop-trading", action="store_true", help="end that; positions stay as they are"
    )
    verbs.add_argument(
        "--emergency-stop", action="store_true", help="stop trading actions on every node, now"
    )
    verbs.add_argument("--interactive", action="store_true", help="a prompt for all of this")


def _add_node(group: argparse._ArgumentGroup) -> None:
    """Texts, unchecked: the settings check every layer in one place."""
    group.add_argument("--id", metavar="NAME", help="name among its peers")
    group.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    group.add_argument("--port", help="port to listen on (default 5000)")
    group.add_argument("--data", metavar="DIR", help="where the node keeps its data")
    group.add_argument("--config", metavar="FILE", help="settings, TOML or YAML")
    group.add_argument(
        "--feed",
        action="append",
        metavar="SPEC",
        help="a live source: simulated, or binance:BTC/USDT,ETH/USDT; may be repeated",
    )
    group.add_argument(
        "--peers", metavar="HOST:PORT,...", help="web addresses of all nodes, this one included"
    )
    group.add_argument("--nats", metavar="URL", help="use this NATS cluster instead of an own one")
    group.add_argument(
        "--witness", action="store_true", default=None, help="run the engine only: a third vote"
    )
    group.add_argument(
        "--replace", metavar="ID", help="take the place of a node that is gone for good"
    )
    group.add_argument("--web-workers", metavar="N", help="web processes that share the port")
    group.add_argument("--async-mode", metavar="MODE", help="eventlet, threading or gevent")
    group.add_argument(
        "--health-interval",
        metavar="SECONDS",
        help="time between samples of this machine's health; 0 takes none",
    )


def _add_backtest(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--coverage",
        type=_number(0),
        metavar="SHARE",
        help="how often what turns out right is to be in a decision's prediction set (0.9)",
    )
    group.add_argument(
        "--horizon",
        type=_number(0),
        metavar="SECONDS",
        help="after which the price judges: of a back-test (60), a decision, or all of a node's",
    )
    group.add_argument(
        "--every",
        type=_number(0),
        metavar="SECONDS",
        help="ask so often on recorded prices of --symbol, instead of the recorded decisions",
    )
    group.add_argument(
        "--costs", type=_number(0), metavar="FRACTION", help="of a round trip (0.001)"
    )
    group.add_argument("--plot", metavar="FILE", help="save the plot, an SVG")


def _add_client(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--url", help=f"the node to talk to, or several with commas (default {DEFAULT_URL})"
    )
    group.add_argument(
        "--json", action="store_true", help="print JSON for programs: the API's own document"
    )
    group.add_argument(
        "--deadline-ms", type=_whole(1, 60_000), metavar="N", help="how long the node may take"
    )


def _add_items(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--type", action="append", help="may be repeated")
    group.add_argument("--source")
    group.add_argument("--symbol", help="several, with commas, for --start-trading")
    moment = "unix seconds, ISO 8601 or a time ago such as -15m"
    group.add_argument("--since", type=_moment, metavar="TIME", help=moment)
    group.add_argument("--until", type=_moment, metavar="TIME", help="likewise")
    group.add_argument("--regex", action="store_true", help="the query is an RE2 pattern")
    group.add_argument("--ignore-case", action="store_true")
    group.add_argument(
        "--limit",
        type=_whole(1, 10**9),
        metavar="N",
        help="most hits (50); with --tail stop after N",
    )
    group.add_argument(
        "--query", metavar="QUERY", help="with --tail and --export: only items that match it"
    )
    group.add_argument("--after", metavar="CURSOR", help="with --tail: start after this item")


def _add_search(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--mode",
        choices=("text", "semantic", "hybrid"),
        help="find the words (text), what they mean (semantic), or both (hybrid)",
    )
    group.add_argument("--before", metavar="CURSOR", help="only items older than this one")
    group.add_argument(
        "--context", type=_whole(0, 20), metavar="N", help="show N items around each hit"
    )
    group.add_argument(
        "--invert", action="store_true", help="items that do not match; also --tail, --export"
    )
    group.add_argument(
        "--follow", action="store_true", help="show hits oldest first, then what comes"
    )
    group.add_argument("--count", action="store_true", help="only how many match")


def _head(text: str) -> Head:
    found = re.fullmatch(r"(\d{1,18}):([0-9a-f]{64})", text)
    if not found:
        raise argparse.ArgumentTypeError(f"must be SEQ:HASH with 64 hex digits (got {text[:80]!r})")
    return Head(int(found[1]), found[2])


def _moment(text: str) -> float:
    try:
        return parse_moment(text, time.time())
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {low} to {high} (got {text!r})"
            )
        return int(text)

    return parse


def _number(low: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= low):
            raise argparse.ArgumentTypeError(f"must be a number of at least {low:g} (got {text!r})")
        return value

    return parse
