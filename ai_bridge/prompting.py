"""From a question to what a language model is shown.

What stays the same comes first, so that a server's prompt cache keeps it: the instructions, then
the packed context oldest first, and only then what is asked this time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import Template

import msgspec

from ai_bridge.errors import Abstained
from ai_bridge.ports import Question
from context.packing import PackRequest, pack

Message = dict[str, str]
Count = Callable[[str], int]
MAX_SHOWN_ANSWER = 4000  # characters of a wrong answer that its author is shown again


@dataclass(frozen=True, slots=True)
class Templates:
    """`$`-templates: `system` and `user` begin a question, `repair` answers a wrong answer.

    Known to system: `$decisions`, `$example`. To user also: `$symbols`, `$context`, `$about`,
    `$asked`, `$now`. To repair: `$problem`, `$decisions`.
    """

    system: str
    user: str
    repair: str


class _Placed(msgspec.Struct):
    offset: int


class _Packed(msgspec.Struct):
    items: list[msgspec.Raw]
    as_of: str


def messages(
    question: Question, templates: Templates, budget_tokens: int, count: Count
) -> list[Message]:
    """Render a question within so many tokens; of the packed context, the newest that fits.

    Raises Abstained where not even the question itself fits.
    """
    bare = _render(question, templates, "", "")
    left = budget_tokens - sum(count(message["content"]) for message in bare)
    if left < 1:
        raise Abstained(f"the question alone does not fit into {budget_tokens} tokens of context")
    about, lines = _context(question.packed, left, count)
    return _render(question, templates, lines, about)


def repair(
    asked: Sequence[Message], answer: str, problem: str, decisions: Sequence[str], text: str
) -> list[Message]:
    """The same conversation, its wrong answer, and what is wrong with it (`text`: the template)."""
    said = Template(text).safe_substitute(problem=problem, decisions=", ".join(decisions))
    return [
        *asked,
        {"role": "assistant", "content": answer[:MAX_SHOWN_ANSWER]},
        {"role": "user", "content": said},
    ]


def _context(packed: bytes, budget: int, count: Count) -> tuple[str, str]:
    """What the packed context is, and its lines; both empty where nothing is packed."""
    if not packed:
        return "", ""
    whole = msgspec.json.decode(packed, type=_Packed)
    newest_first = [
        (msgspec.json.decode(raw, type=_Placed).offset, bytes(raw), bytes(raw))
        for raw in reversed(whole.items)
    ]
    request = PackRequest(format="prompt", budget_tokens=budget, limit=10_000, stable=True)
    fitted = msgspec.json.decode(pack(newest_first, request, count, "", whole.as_of).body)
    lines, _, about = fitted["prompt"].rstrip("\n").rpartition("\n")
    return about, lines


def _render(question: Question, templates: Templates, context: str, about: str) -> list[Message]:
    values = _values(question) | {"context": context, "about": about}
    return [
        {"role": "system", "content": Template(templates.system).safe_substitute(values)},
        {"role": "user", "content": Template(templates.user).safe_substitute(values)},
    ]


def _values(question: Question) -> dict[str, str]:
    share = round(1 / len(question.decisions), 2)
    rest = [share] * (len(question.decisions) - 1)
    shares = [round(1 - sum(rest), 2), *rest]
    example = {
        "reasoning": "one or two sentences",
        "decision": question.decisions[0],
        "confidence": shares[0],
        "distribution": dict(zip(question.decisions, shares, strict=True)),
    }
    return {
        "decisions": ", ".join(question.decisions),
        "example": msgspec.json.encode(example).decode(),
        "symbols": ", ".join(question.symbols),
        "asked": msgspec.json.encode(question.context).decode(),
        "now": f"{question.now:.3f}",
    }
