"""Where verbs write: documents for programs, or text for people; complaints on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

_PIPE_COLUMNS = 240  # a table in a pipe is not cut to the 80 columns that a pipe has by default


class Screen:
    """Standard output and error of one command; colours only on a terminal (see NO_COLOR)."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        width = None if sys.stdout.isatty() else _PIPE_COLUMNS
        self.out = Console(file=sys.stdout, width=width, highlight=False, soft_wrap=False)
        self.err = Console(file=sys.stderr, highlight=False)

    def document(self, document: Mapping[str, Any]) -> None:
        """One JSON document on one line, flushed, so that a reader sees it at once."""
        print(json.dumps(document, ensure_ascii=False), file=self.out.file, flush=True)

    def show(self, document: Mapping[str, Any], view: RenderableType) -> None:
        """A document for programs, or its view for people."""
        if self.as_json:
            self.document(document)
        else:
            self.view(view)

    def view(self, view: RenderableType) -> None:
        """Something for people; a pipe gets it without the blanks that fill up a table."""
        if self.out.is_terminal:
            self.out.print(view)
            return
        with self.out.capture() as capture:
            self.out.print(view)
        for line in capture.get().splitlines():
            print(line.rstrip(), file=self.out.file)

    def line(self, text: Text) -> None:
        """One line, however long; a pipe gets it without rich's work, which a fast tail needs."""
        if self.out.is_terminal:
            self.out.print(text, soft_wrap=True)
        else:
            print(text.plain, file=self.out.file, flush=True)

    def note(self, text: str) -> None:
        """A remark beside the output."""
        self.err.print(Text(text, "dim"), soft_wrap=True)

    def complain(self, text: str) -> None:
        """What went wrong, as one sentence."""
        self.err.print(Text.assemble(("error: ", "bold red"), text), soft_wrap=True)
