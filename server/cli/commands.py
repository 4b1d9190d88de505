"""The commands of the prompt: the verbs under short names, and a few looks of its own."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from rich.text import Text

from context.client import Client
from server.cli import render, verbs
from server.cli.parser import build_parser, misplaced
from server.cli.screen import Screen
from server.cli.verbs import DONE, Verb


class Misused(Exception):
    """A command's arguments are wrong."""


@dataclass(frozen=True, slots=True)
class Command:
    """How a command is written, read and run."""

    usage: str
    parse: Callable[[list[str]], argparse.Namespace]  # raises Misused
    run: Verb


class _Parser(argparse.ArgumentParser):
    """Raises instead of ending the program."""

    def error(self, message: str) -> NoReturn:
        raise Misused(message)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise Misused(message or "that was all")


def _as_verb(flag: str) -> Callable[[list[str]], argparse.Namespace]:
    """Arguments of the command line's own verb, checked as there."""

    def parse(words: list[str]) -> argparse.Namespace:
        args = build_parser(_Parser).parse_args([flag, *words])
        if wrong := misplaced(args):
            raise Misused(wrong)
        return args

    return parse


def _with(*names: str) -> Callable[[list[str]], argparse.Namespace]:
    """Arguments of these names; `--limit` and `offset` are whole numbers."""
    parser = _Parser(add_help=False)
    for name in names:
        parser.add_argument(name, type=int if name in ("--limit", "offset") else str)
    return parser.parse_args


def _latest(client: Client, screen: Screen, args: argparse.Namespace) -> int:
    found = client.latest(**vars(args) | {"limit": args.limit or 20})
    for item in reversed(found["items"]):  # the newest beside the prompt
        screen.line(render.item_line(item))
    return DONE


def _item(client: Client, screen: Screen, args: argparse.Namespace) -> int:
    screen.view(render.pairs_view(client.item(args.offset)))
    return DONE


def _decisions(client: Client, screen: Screen, args: argparse.Namespace) -> int:
    screen.view(render.decisions_view(client.decisions(**vars(args))))
    return DONE


def _models(client: Client, screen: Screen, args: argparse.Namespace) -> int:
    screen.view(render.models_view(client.models()))
    return DONE


def _stats(client: Client, screen: Screen, args: argparse.Namespace) -> int:
    screen.view(render.pairs_view(client.stats()))
    return DONE


def _help(client: Client, screen: Screen, args: argparse.Namespace) -> int:
    for command in COMMANDS.values():
        screen.line(Text(command.usage))
    screen.line(Text("quit   leave; Ctrl-D too"))
    return DONE


COMMANDS = {
    "search": Command(
        "search QUERY [--regex] [--type T] [--since -15m] ...   grep, newest first",
        _as_verb("--search"),
        verbs.search,
    ),
    "tail": Command(
        "tail [--query Q] [--type T] [--symbol S] ...   follow; Ctrl-C comes back here",
        _as_verb("--tail"),
        verbs.tail,
    ),
    "latest": Command(
        "latest [--type T] [--source S] [--symbol S] [--limit N]   newest items",
        _with("--type", "--source", "--symbol", "--limit"),
        _latest,
    ),
    "item": Command("item N   the item at offset N", _with("offset"), _item),
    "decide": Command(
        "decide SYMBOL...   have the models decide", _as_verb("--ai-decision"), verbs.decide
    ),
    "decisions": Command(
        "decisions [--symbol S] [--model M] [--limit N]   recorded decisions",
        _with("--symbol", "--model", "--limit"),
        _decisions,
    ),
    "models": Command("models   who decides, and with what weight", _with(), _models),
    "status": Command(
        "status   how the node and its cluster are", _as_verb("--status"), verbs.status
    ),
    "stats": Command("stats   what the node holds", _with(), _stats),
    "help": Command("help   this list; quote as in a shell: search '\"id\":5'", _with(), _help),
}
