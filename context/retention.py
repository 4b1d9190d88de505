"""What is kept no longer: whole blocks, by the age, the number or the bytes of what is in them.

A block goes when every type in it is past its rule, so nothing goes that some rule still keeps, and
of a bounded type at least the bound stays. The newest block always stays: it tells where the log
ends. Offsets of what is left do not change; readers hear of the rest as a gap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from context.sealed import Head

DEFAULT = "default"  # the rule of types that have none of their own


@dataclass(frozen=True, slots=True)
class Rule:
    """Bounds of one type; None for no bound, and the first one reached counts."""

    max_age_s: float | None = None  # by event time
    max_items: float | None = None
    max_bytes: float | None = None  # of lines, as they were before compression


Rules = Mapping[str, Rule]


def parse_rules(tables: Mapping[str, Mapping[str, Any]]) -> Rules:
    """Rules by type. Raises ValueError naming type, field and value."""
    known = {each.name for each in fields(Rule)}
    for name, table in tables.items():
        for field, value in table.items():
            if field not in known:
                raise ValueError(f"{name}.{field} is none of {', '.join(sorted(known))}")
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ValueError(f"{name}.{field} must be a number above 0, got {value!r}")
    return {name: Rule(**table) for name, table in tables.items()}


def expired(heads: Sequence[Head], rules: Rules, *, now: float) -> list[Head]:
    """Blocks that no rule keeps at unix second `now`, newest first; `heads` ascend."""
    items: Counter[str] = Counter()  # in what is kept of newer blocks
    nbytes: Counter[str] = Counter()
    gone = []

    def past(head: Head, name: str) -> bool:
        rule = rules.get(name) or rules.get(DEFAULT) or Rule()
        return (
            (rule.max_age_s is not None and head.bounds.max_time < now - rule.max_age_s)
            or (rule.max_items is not None and items[name] >= rule.max_items)
            or (rule.max_bytes is not None and nbytes[name] >= rule.max_bytes)
        )

    for i, head in enumerate(reversed(heads)):
        if i and head.types and all(past(head, name) for name in head.types):
            gone.append(head)
            continue
        total = sum(head.types.values())
        for name, count in head.types.items():
            items[name] += count
            nbytes[name] += head.bounds.nbytes * count // total
    return gone


def over_budget(heads: Sequence[Head], excess: int) -> list[Head]:
    """The oldest blocks that together have at least `excess` bytes on disk; `heads` ascend."""
    gone: list[Head] = []
    for head in heads[:-1]:
        if excess <= 0:
            break
        gone.append(head)
        excess -= head.length
    return gone


def superseded(lost: Collection[Head], kept: Sequence[Head]) -> list[Head]:
    """Lost blocks before which nothing is kept any more: they are gone like everything there.

    Where the log begins with lost blocks and nothing was dropped, they stay lost.
    """
    oldest = kept[0].bounds.first_offset if kept else 0
    early = [head for head in lost if head.bounds.last_offset < oldest]
    dropped = sum(head.bounds.count for head in early) < oldest
    return early if dropped else []
