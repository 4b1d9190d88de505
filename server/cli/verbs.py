"""What each verb does with a node: ask, show, and return the exit status."""

from __future__ import annotations

import argparse
import contextlib
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from context.client import Client, ClientError, Event, NodeUnreachable, RequestFailed
from server.cli import render, trading
from server.cli.backtesting import backtest
from server.cli.parser import FORMATS
from server.cli.progress import receiving
from server.cli.replay import ReplayFailed, replay
from server.cli.screen import Screen
from server.cli.verifying import verify_node

DONE, FAILED, WRONG_ARGUMENTS, NO_NODE = 0, 1, 2, 3
Verb = Callable[[Client, Screen, argparse.Namespace], int]


def status(client: Client, screen: Screen, args: argparse.Namespace) -> int:
    """Whether the node serves; in JSON one document with the API's documents by name."""
    document = client.status()
    if document["ready"]:
        document |= {"nodes": client.nodes(), "control": client.control(), "stats": client.stats()}
        document["trading"] = client.trading()
        view = Group(render.status_view(document), trading.trading_line(document["trading"]))
        screen.show(document, view)
        return DONE
    screen.show(document, render.status_view(document))
    return FAILED


def search(client: Client, screen: Screen, args: argparse.Namespace) -> int:
    """One page of hits, or their number; or hits and what follows."""
    if args.follow:
        wish = {"query": args.search, "invert": args.invert or None, **_items(args)}
        return _grep_then_follow(client, screen, args, wish)
    page = client.search(
        args.search,
        **_items(args),
        mode=args.mode,
        before=args.before,
        context=args.context,
        invert=args.invert or None,
        count_only=args.count or None,
        deadline_ms=args.deadline_ms,
        limit=args.limit,
    )
    if screen.as_json:
        screen.document(page)
        return DONE
    for hit in page.get("items", ()):
        for line in render.hit_lines(hit):
            screen.line(line)
    if "count" in page:
        screen.line(Text(str(page["count"])))
    if screen.out.is_terminal or page["partial"] or "damaged" in page:
        screen.note(render.search_footer(page))
    return DONE


def tail(client: Client, screen: Screen, args: argparse.Namespace) -> int:
    """Follow the log until Ctrl-C or for `--limit` items, across lost connections."""
    client.status()  # without a node end here, instead of trying for ever
    wish = {"query": args.query, "invert": args.invert or None, **_items(args)}
    with contextlib.suppress(KeyboardInterrupt):
        _follow(client, screen, args, wish, after=args.after, most=args.limit)
    return DONE


def _follow(
    client: Client,
    screen: Screen,
    args: argparse.Namespace,
    wish: Mapping[str, Any],
    *,
    after: str | None,
    most: int | None = None,
) -> None:
    outage, shown = _Outage(screen), 0
    events = client.stream(after, on_retry=outage.tell, **wish)
    while most is None or shown < most:
        event = next(events)
        outage.over()
        shown += _show_event(event, screen, args, wish["query"])


def _grep_then_follow(
    client: Client, screen: Screen, args: argparse.Namespace, wish: Mapping[str, Any]
) -> int:
    """The newest hits, oldest first, then what comes after the search, until Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        page = client.search(**wish, limit=args.limit, deadline_ms=args.deadline_ms)
        for hit in reversed(page["items"]):
            item = {name: value for name, value in hit.items() if name not in ("line", "matches")}
            _show_event(Event("context", item["id"], item), screen, args, wish["query"])
        if page["partial"]:
            screen.note("the deadline cut the search: there may be older hits")
        _follow(client, screen, args, wish, after=page["as_of"])
    return DONE


def _show_event(event: Event, screen: Screen, args: argparse.Namespace, query: str | None) -> int:
    """Print an event; returns how many items that were."""
    if event.kind == "gap":
        missed = event.data
        screen.complain(f"items {missed.get('missed_from')} to {missed.get('missed_to')} are gone")
        return 0
    if screen.as_json:
        screen.document(event.data)
    else:
        screen.line(render.item_line(event.data, query=None if args.regex else query))
    return 1


class _Outage:
    """Tells of a lost connection once, not at every try."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._told = False

    def tell(self, error: ClientError, pause_s: float) -> None:
        if not self._told:
            self._screen.note(f"{error}; trying again")
        self._told = True

    def over(self) -> None:
        self._told = False


def export(client: Client, screen: Screen, args: argparse.Namespace) -> int:
    """Write what is stored to a file or to standard output, which then holds nothing else."""
    piped = args.export == "-"
    suffix = Path(args.export).suffix[1:]
    try:
        with receiving(screen.err) as show:
            done = client.export(
                sys.stdout.buffer if piped else args.export,
                args.format or (suffix if suffix in FORMATS else "ndjson"),
                on_progress=show,
                query=args.query,
                invert=args.invert or None,
                **_items(args),
            )
    except BrokenPipeError:
        raise
    except OSError as error:
        screen.complain(f"cannot write {args.export}: {error.strerror}")
        return WRONG_ARGUMENTS
    if not piped:
        screen.show(done, render.pairs_view(done))
    return DONE


def decide(client: Client, screen: Screen, args: argparse.Namespace) -> int:
    """A decision with every vote."""
    decision = client.decide(
        args.ai_decision,
        deadline_ms=args.deadline_ms,
        coverage=args.coverage,
        horizon_s=args.horizon,
    )
    screen.show(decision, render.decision_view(decision))
    return DONE


def emergency_stop(client: Client, screen: Screen, args: argparse.Namespace) -> int:
    """Stop trading actions, without asking back: it is an emergency."""
    answer = client.emergency_stop()
    screen.show(answer, Text("trading actions are stopped on every node", "bold red"))
    return DONE


def send(client: Client, screen: Screen, args: argparse.Namespace) -> int:
    """Replay a recording."""
    client.status()  # without a node end here, instead of repeating for minutes
    try:
        summary = replay(
            client,
            args.replay,
            speed=1.0 if args.speed is None else args.speed,
            give_up_after_s=120.0 if args.give_up_after is None else args.give_up_after,
            run_id=uuid.uuid4().hex,
            console=screen.err,
        )
    except ReplayFailed as error:
        screen.complain(f"{args.replay}: {error}")
        return FAILED
    except OSError as error:
        screen.complain(f"cannot read {args.replay}: {error.strerror}")
        return WRONG_ARGUMENTS
    document = summary.as_json()
    screen.show(document, render.pairs_view(document))
    return DONE


VERBS: dict[str, Verb] = {
    "verify_decisions": verify_node,
    "backtest": backtest,
    "status": status,
    "search": search,
    "tail": tail,
    "export": export,
    "ai_decision": decide,
    "start_trading": trading.start,
    "stop_trading": trading.stop,
    "emergency_stop": emergency_stop,
    "replay": send,
}


def attempt(verb: Verb, client: Client, screen: Screen, args: argparse.Namespace) -> int:
    """Run a verb; what goes wrong becomes one sentence and an exit status."""
    try:
        return verb(client, screen, args)
    except NodeUnreachable as error:
        screen.complain(
            f"no node reachable at {error.url}; start one with script/node ({error.reason})"
        )
        return NO_NODE
    except RequestFailed as error:
        again = "; try again in a moment" if error.retryable else ""
        screen.complain(f"the node refused: {render.safe(error)}{again}")
        return FAILED
    except KeyboardInterrupt:
        screen.complain("interrupted")
        return FAILED


def _items(args: argparse.Namespace) -> dict[str, Any]:
    """The options that choose items, as the API names them."""
    chosen = {
        "source": args.source,
        "symbol": args.symbol,
        "since": args.since,
        "until": args.until,
        "regex": args.regex or None,
        "ignore_case": args.ignore_case or None,
    }
    if args.type:
        chosen |= {"type": args.type[0]} if len(args.type) == 1 else {"types": args.type}
    return {name: value for name, value in chosen.items() if value is not None}
