"""Calls on tensor hashes: what a hash means, how often it was seen, which items carry it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import msgspec

from context.errors import InvalidRequest, NotFound
from context.items import encode_item
from context.request import SearchRequest
from context.search import search
from context.snapshot import Snapshot
from context.tensor_registry import Entry, Registry
from context.tensors import AmbiguousHash, Calculation, TensorItem, key_of, named_in, range_of
from server.agent import answers
from server.agent.context_calls import body_json
from server.agent.node import Node
from server.ipc import Answer, Request

MAX_LOOKUPS = 200
MAX_CANDIDATES = 20  # hashes that an ambiguous prefix names
MAX_ITEMS = 100
FIND_DEADLINE_MS = 500

_decode = msgspec.json.Decoder(TensorItem).decode


class Lookup:
    """Answers from one registry and one snapshot."""

    def __init__(self, node: Node) -> None:
        self._registry: Registry = node.tensors
        self._snapshot: Snapshot = node.snapshot()
        self._epoch = node.log.epoch
        self.as_of = node.cursor(self._registry.folded)

    def one(self, text: str) -> dict[str, Any]:
        """The hash that `text` is, or begins; raises NotFound and AmbiguousHash."""
        found = self.exact(text)
        if found:
            return found
        span = range_of(text)
        if span is None:
            raise NotFound(f"no hash {text[:80]!r}; the beginning of one takes 6 hex digits")
        entries = self._registry.between(*span, MAX_CANDIDATES + 1)
        matches = [each for each in self._told(entries) if _begins(each["hash"], text)]
        if not matches:
            raise NotFound(f"no hash begins with {text[:80]!r}")
        if len(matches) > 1:
            raise AmbiguousHash(text, [(each["hash"], each["meaning"]) for each in matches])
        return matches[0]

    def exact(self, text: str) -> dict[str, Any] | None:
        """The hash that `text` is."""
        entry = self._registry.get(key_of(text))
        told = self._tell(entry) if entry else None
        return told if told and told["hash"].lower() == text.lower() else None

    def item(self, offset: int) -> list[dict[str, Any]]:
        """Every known hash that the item carries; raises NotFound."""
        line = self._line(offset)
        if line is None:
            raise NotFound(f"there is no item {offset}; the newest is {self._snapshot.newest}")
        texts = named_in(line)
        data = _calculation(line)
        texts += [text for text in (data.hashes() if data else ()) if text not in texts]
        found = {told["hash"]: told for text in texts if (told := self.exact(text))}
        return list(found.values())

    def carriers(self, told: dict[str, Any], limit: int) -> dict[str, Any]:
        """Items that carry the hash, newest first: what was calculated, and whatever names it."""
        asked = SearchRequest(query=told["hash"], limit=limit, deadline_ms=FIND_DEADLINE_MS)
        hits = search(self._snapshot, asked, epoch=self._epoch, clock=time.monotonic)
        offsets = {msgspec.json.decode(hit, type=_Offset).offset for hit in hits["items"]}
        offsets |= {int(told[name].partition(":")[2]) for name in ("first", "newest")}
        found = [(offset, self._snapshot.kept(offset)) for offset in sorted(offsets, reverse=True)]
        items = [msgspec.Raw(encode_item(self._epoch, o, *item)) for o, item in found if item]
        return {"items": items[:limit], "partial": hits["partial"]}

    def _told(self, entries: Iterable[Entry]) -> list[dict[str, Any]]:
        return [told for entry in entries if (told := self._tell(entry))]

    def _tell(self, entry: Entry) -> dict[str, Any] | None:
        """An entry with what its items say; None where retention took them."""
        data = self._calculation(entry.newest)
        if data is None:
            return None
        own = next((text for text in data.hashes() if key_of(text) == entry.key), None)
        if own is None:
            return None
        meant = self._calculation(entry.meant) if entry.meant >= 0 else None
        canonical = data.canonical()
        return {
            "hash": own,
            "canonical_hash": canonical and canonical.hex(),
            "hash_value": data.hash_value,
            "meaning": meant.context_meaning if meant else None,
            "calculation_id": data.calculation_id,
            "seen": entry.seen,
            "first": f"{self._epoch}:{entry.first}",
            "newest": f"{self._epoch}:{entry.newest}",
        }

    def _calculation(self, offset: int) -> Calculation | None:
        line = self._line(offset)
        return _calculation(line) if line else None

    def _line(self, offset: int) -> bytes | None:
        found = self._snapshot.kept(offset)
        return found[1] if found else None


class _Offset(msgspec.Struct):
    offset: int


def _calculation(line: bytes) -> Calculation | None:
    try:
        return _decode(line).data if line.startswith(b'{"type":"tensor_math",') else None
    except (msgspec.DecodeError, RecursionError):
        return None


def _begins(text: str, prefix: str) -> bool:
    return text.lower().startswith(prefix.lower())


async def get_tensor(node: Node, request: Request) -> Answer:
    """GET /api/context/tensors/<hash>."""
    text, limit = request.params["hash"], request.params["args"].get("limit", "10")
    if not (limit.isascii() and limit.isdecimal() and int(limit[:9]) <= MAX_ITEMS):
        raise InvalidRequest(
            f"limit must be a whole number from 0 to {MAX_ITEMS}, got {limit[:80]}"
        )
    return answers.json(await node.scan(_tensor, Lookup(node), text, int(limit)))


def _tensor(lookup: Lookup, text: str, limit: int) -> dict[str, Any]:
    told = lookup.one(text)
    more = lookup.carriers(told, limit) if limit else {}
    return {**told, **more, "as_of": lookup.as_of}


async def get_tensors(node: Node, request: Request) -> Answer:
    """GET /api/context/tensors?offset=N: the hashes that an item carries."""
    text = request.params["args"].get("offset", "")
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise InvalidRequest(f"offset must be a whole number, got {text[:80]!r}")
    lookup = Lookup(node)
    found = await node.scan(lookup.item, int(text))
    return answers.json({"tensors": found, "as_of": lookup.as_of})


async def post_lookup(node: Node, request: Request) -> Answer:
    """POST /api/context/tensors/lookup: many hashes at once."""
    body = body_json(request)
    hashes = body.get("hashes") if isinstance(body, dict) and set(body) == {"hashes"} else None
    if not isinstance(hashes, list) or not all(isinstance(each, str) for each in hashes):
        raise InvalidRequest('the body must be {"hashes": [...]}, a list of texts')
    if not 0 < len(hashes) <= MAX_LOOKUPS:
        raise InvalidRequest(f"hashes must be 1 to {MAX_LOOKUPS} texts, got {len(hashes)}")
    return answers.json(await node.scan(_lookup, Lookup(node), hashes))


def _lookup(lookup: Lookup, hashes: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    unknown, ambiguous = [], {}
    for text in dict.fromkeys(hashes):
        try:
            found[text] = lookup.one(text)
        except NotFound:
            unknown.append(text)
        except AmbiguousHash as exc:
            ambiguous[text] = exc.hashes
    return {"found": found, "unknown": unknown, "ambiguous": ambiguous, "as_of": lookup.as_of}


CALLS = {"tensor": get_tensor, "tensors": get_tensors, "tensors_lookup": post_lookup}
