"""Completion at the prompt: commands, options, and the names that the node holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from context.client import Client, ClientError

_OPTIONS = {
    "search": (
        *("--type", "--source", "--symbol", "--since", "--until", "--regex", "--ignore-case"),
        *("--limit", "--before", "--context", "--invert", "--count", "--deadline-ms", "--json"),
    ),
    "tail": (
        *("--type", "--source", "--symbol", "--since", "--until", "--regex", "--ignore-case"),
        *("--limit", "--query", "--after", "--json"),
    ),
    "latest": ("--type", "--source", "--symbol", "--limit"),
    "decisions": ("--symbol", "--model", "--limit"),
    "decide": ("--deadline-ms", "--coverage", "--horizon", "--json"),
}


class Known:
    """Types, sources and symbols of the newest items."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.names: dict[str, list[str]] = {}

    def refresh(self) -> None:
        """Look again; a node that is away leaves what was known."""
        try:
            items = self._client.latest(limit=1000)["items"]
        except ClientError:
            return
        self.names = {
            "--type": sorted({item["type"] for item in items}),
            "--source": sorted({item["source"] for item in items}),
            "--symbol": sorted(
                {str(item["data"]["symbol"]) for item in items if "symbol" in item["data"]}
            ),
        }


class Words(Completer):
    """Completes the word before the cursor."""

    def __init__(self, commands: Iterable[str], known: Known) -> None:
        self._commands = sorted(commands)
        self._known = known

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterator[Completion]:
        """Completions for the text up to the cursor."""
        *before, word = document.text_before_cursor.split(" ")
        for candidate in self._candidates([each for each in before if each]):
            if candidate.startswith(word):
                yield Completion(candidate, start_position=-len(word))

    def _candidates(self, before: list[str]) -> Iterable[str]:
        if not before:
            return self._commands
        names = self._known.names
        if before[-1] in names:
            return names[before[-1]]
        symbols = names.get("--symbol", []) if before[0] == "decide" else []
        return [*symbols, *_OPTIONS.get(before[0], ())]
