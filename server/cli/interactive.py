"""A prompt for everything the command line can ask of a node."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.shortcuts import CompleteStyle

from context.client import Client
from server.cli.commands import COMMANDS, Misused
from server.cli.completion import Known, Words
from server.cli.render import safe
from server.cli.screen import Screen
from server.cli.verbs import DONE, WRONG_ARGUMENTS, attempt


def interact(client: Client, screen: Screen, args: argparse.Namespace) -> int:
    """Run commands until `quit` or the end of input.

    Returns 0 at a terminal; for piped commands the status of the last one that failed.
    """
    client.status()  # without a node there is nothing to ask
    at_terminal = sys.stdin.isatty()
    failed = DONE
    for line in _prompted(client) if at_terminal else sys.stdin:
        if line.strip() in ("quit", "exit"):
            break
        failed = obey(line, client, screen) or failed
    return DONE if at_terminal else failed


def obey(line: str, client: Client, screen: Screen) -> int:
    """Run one line; returns its exit status."""
    try:
        name, *words = shlex.split(line) or [""]
        if not name:
            return DONE
        if name not in COMMANDS:
            raise Misused(f"there is no command {safe(name)}; try help")
        args = COMMANDS[name].parse(words)
    except Misused as error:
        usage = f"; usage: {COMMANDS[name].usage}" if name in COMMANDS else ""
        screen.complain(f"{error}{usage}")
        return WRONG_ARGUMENTS
    except ValueError as error:
        screen.complain(f"{error}; quote as in a shell".lower())
        return WRONG_ARGUMENTS
    screen.as_json = getattr(args, "json", False)
    return attempt(COMMANDS[name].run, client, screen, args)


def _prompted(client: Client) -> Iterator[str]:
    known = Known(client)
    session: PromptSession[str] = PromptSession(
        history=_history(os.environ),
        completer=Words([*COMMANDS, "quit"], known),
        complete_while_typing=False,
        complete_style=CompleteStyle.READLINE_LIKE,
    )
    while True:
        known.refresh()
        try:
            yield session.prompt("context> ")
        except KeyboardInterrupt:
            continue
        except EOFError:
            return


def _history(environ: Mapping[str, str]) -> History:
    """A file that outlives the prompt; memory where none can be written."""
    path = history_path(environ)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
    except OSError:
        return InMemoryHistory()
    return FileHistory(path)


def history_path(environ: Mapping[str, str]) -> Path:
    """Where history lies: below $XDG_STATE_HOME, else in ~/.cache."""
    state = environ.get("XDG_STATE_HOME")
    folder = Path(state) if state else Path(environ.get("HOME", "/")) / ".cache"
    return folder / "context-media-server" / "history"
