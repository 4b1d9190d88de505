"""Which blocks a search can leave out: by what every match must contain."""

from __future__ import annotations

from functools import lru_cache

from context.bitslices import Plan
from context.literals import required
from context.query import Selection


def plan_of(selection: Selection) -> Plan | None:
    """The n-grams that a block needs to hold anything that passes; None where any block may."""
    matcher = selection.matcher
    if matcher is None or selection.invert:
        return None
    plan = _plan(matcher.query, matcher.regex, matcher.ignore_case)
    return plan if plan.clauses else None


@lru_cache(256)
def _plan(query: str, regex: bool, ignore_case: bool) -> Plan:
    return Plan(required(query, regex=regex, ignore_case=ignore_case))
