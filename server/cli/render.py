"""What people see: API documents as rich text and tables. Pure: documents in, renderables out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from server.cli.timespec import show_moment

Json = Mapping[str, Any]

# Sources and reasons are anybody's text; a terminal would obey what they hide.
_CONTROLS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], "\N{REPLACEMENT CHARACTER}")
_DECISIONS = {"buy": "bold green", "sell": "bold red", "hold": "bold yellow"}
_STATES = {"ok": "green", "alive": "green", "healthy": "green", "suspect": "yellow"}


def safe(value: object) -> str:
    """Text with its control characters replaced one for one, so that positions stay."""
    return str(value).translate(_CONTROLS)


def hit_lines(hit: Json) -> list[Text]:
    """A hit as grep prints it: its neighbours with `-`, itself with `:` and its matches marked."""
    around = hit.get("context") or {}
    line = _head(hit, ":")
    start = len(line)
    line.append(safe(hit["line"]))
    for first, last in hit["matches"]:
        line.stylize("bold red", start + first, start + last)
    before = [item_line(item, "-", style="dim") for item in around.get("before", ())]
    after = [item_line(item, "-", style="dim") for item in around.get("after", ())]
    return [*before, line, *after]


def item_line(item: Json, mark: str = ":", *, style: str = "", query: str | None = None) -> Text:
    """An item on one line: time, type, source, offset and its data; `query` is marked literally."""
    line = _head(item, mark)
    start = len(line)
    line.append(safe(_compact(item["data"])), style=style)
    if item.get("metadata") is not None:
        line.append(safe(f" {_compact(item['metadata'])}"), style="dim")
    for found in re.finditer(re.escape(query), line.plain) if query else ():
        if found.start() >= start:
            line.stylize("bold red", found.start(), found.end())
    return line


def _head(item: Json, mark: str) -> Text:
    moment = item.get("timestamp")
    return Text.assemble(
        (show_moment(moment) if moment is not None else "-", "cyan"),
        " ",
        (safe(item.get("type")), "magenta"),
        " ",
        (safe(item.get("source", "unknown")), "blue"),
        " ",
        (f"{item.get('offset')}{mark}", "green"),
    )


def search_footer(page: Json) -> str:
    """One line under the hits: how much was looked at, and how to go on."""
    scanned = page["scanned"]
    parts = [f"{len(page['items'])} hits" if "items" in page else "counted"]
    parts.append(
        f"{page['elapsed_ms']:g} ms, {scanned['blocks']} blocks read, {scanned['skipped']} skipped"
    )
    if page["partial"]:
        parts.append("stopped at its deadline before the oldest item")
    if lost := page.get("damaged"):
        ranges = ", ".join(f"{each['first']}-{each['last']}" for each in lost)
        parts.append(f"items {ranges} cannot be read: their blocks are damaged")
    if page["next"]:
        parts.append(f"older ones with --before {page['next']}")
    return "; ".join(parts)


def decision_view(decision: Json) -> Group:
    """A decision: the outcome, why, and every vote (a vote's reason is cut to its line)."""
    verdict = "abstained" if decision.get("abstained") else safe(decision["final_decision"])
    head = Text.assemble(
        (verdict.upper(), _DECISIONS.get(verdict, "bold")),
        f"  {', '.join(map(safe, decision.get('symbols', ())))}",
        f"  confidence {_number(decision.get('confidence'))}",
        f"  agreement {_number(decision.get('agreement'))}",
        (f"  {safe(decision['decision_id'])}", "dim"),
    )
    columns = ("model", "status", "decision", "confidence", "weight", "latency_ms", "reasoning")
    votes = _rows(decision["votes"], columns)
    return Group(head, Text(safe(decision.get("reasoning") or "")), votes)


def decisions_view(document: Json) -> Table:
    """Recorded decisions, newest first."""
    columns = ("decision_id", "final_decision", "confidence", "symbols", "reasoning")
    return _rows(document["decisions"], columns)


def models_view(document: Json) -> Table:
    """The models: what they are, how they are, and what they weigh."""
    columns = ("name", "kind", "health", "enabled", "weight", "learned_weight", "last_reason")
    return _rows(document["models"], columns)


def nodes_view(document: Json) -> Group:
    """Leader, term and members."""
    columns = ("id", "role", "state", "term", "url", "heartbeat_age_s", "behind", "score", "of")
    newest = next((n["applied_offset"] for n in document["nodes"] if n["role"] == "leader"), -1)
    rows = [
        {
            **node,
            "behind": max(0, newest - node["applied_offset"]),
            "of": [f"{part} {value:g}" for part, value in node["score_parts"].items()],
        }
        for node in document["nodes"]
    ]
    led = f"leader {safe(document['leader'])}" if document["leader"] else "no leader"
    return Group(Text(f"{led}, term {document['term']}"), _rows(rows, columns))


def pairs_view(document: Json, prefix: str = "") -> Table:
    """Any document as name and value, nested ones with dotted names."""
    return table(
        ("", ""), ([Text(name, "cyan"), Text(value)] for name, value in _flat(document, prefix))
    )


def status_view(document: Json) -> Group:
    """Whether the node serves, its cluster, whether trading is stopped, and what it holds."""
    if not document["ready"]:
        why = document["readyz"].get("detail") or _compact(document["readyz"])
        return Group(Text.assemble(("not ready", "bold red"), f": {safe(why)}"))
    parts: list[RenderableType] = [Text("ready", "bold green"), nodes_view(document["nodes"])]
    if document["control"].get("emergency_stop"):
        parts.append(Text("emergency stop: trading actions are stopped", "bold red"))
    return Group(*parts, pairs_view(document["stats"]))


def table(columns: Iterable[str], rows: Iterable[Iterable[Text]]) -> Table:
    """A table without lines around it, so that it reads the same in a pipe.

    Where it is too wide, the last column gives way.
    """
    *firm, last = columns
    made = Table(box=None, pad_edge=False, header_style="bold", show_header=bool(last))
    for name in firm:
        made.add_column(name, no_wrap=True)
    made.add_column(last)
    for row in rows:
        made.add_row(*row)
    return made


def _rows(documents: Iterable[Json], columns: tuple[str, ...]) -> Table:
    """A document a line: what does not fit is cut."""
    rows = [[_cell(each.get(name)) for name in columns] for each in documents]
    for row in rows:
        row[-1].no_wrap, row[-1].overflow = True, "ellipsis"
    return table(columns, rows)


def _cell(value: object) -> Text:
    text = _number(value) if isinstance(value, float) else safe("-" if value is None else value)
    if isinstance(value, list):
        text = safe(", ".join(map(str, value)))
    return Text(text, _DECISIONS.get(text) or _STATES.get(text, ""))


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else safe("-" if value is None else value)


def _flat(document: Json, prefix: str) -> Iterable[tuple[str, str]]:
    for name, value in document.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            shown = value if isinstance(value, str) else _compact(value)
            yield safe(f"{prefix}{name}"), safe(shown)


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
