"""The verbs that ask a running node: all but `--node` and those that read a data folder."""

from __future__ import annotations

import argparse
import io
import os
import sys

from context.client import Client
from server.cli.interactive import interact
from server.cli.parser import DEFAULT_URL, misplaced, verb_of
from server.cli.screen import Screen
from server.cli.verbs import DONE, VERBS, WRONG_ARGUMENTS, attempt


def run(args: argparse.Namespace) -> int:
    """Do what the arguments ask of a node; returns the exit status.

    0 done, 1 the request failed, 2 wrong arguments, 3 no node reachable.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    screen = Screen(as_json=args.json)
    if wrong := misplaced(args):
        screen.complain(wrong)
        return WRONG_ARGUMENTS
    try:
        client = Client(args.url or DEFAULT_URL, token=os.environ.get("CONTEXT_API_TOKEN"))
    except ValueError as error:
        screen.complain(str(error))
        return WRONG_ARGUMENTS
    verb = VERBS.get(verb_of(args), interact)
    with client:
        try:
            return attempt(verb, client, screen, args)
        except BrokenPipeError:
            # The reader has seen enough (`| head`); what is still buffered has nowhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return DONE
