"""What each type of item demands of its `data`.

Add a type: write its check and put it into `TYPES`. Users add theirs at run time with a JSON
Schema (`Types.register`). A check returns None, or the field and what is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import jsonschema_rs

from context.errors import InvalidRequest

Data = dict[str, Any]
Check = Callable[[Data], tuple[str, str] | None]

TYPE_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
MAX_SCHEMA_BYTES = 64 * 1024
_LARGEST = 1.7976931348623157e308


def _number(value: Any) -> bool:
    """A finite JSON number: `true` is none, and an integer may be too large for a float."""
    kind = type(value)
    return (kind is float or kind is int) and -_LARGEST <= value <= _LARGEST


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _at_least_zero(data: Data, field: str) -> tuple[str, str] | None:
    value = data[field]
    if _number(value) and value >= 0:
        return None
    return field, f"must be a finite number >= 0, got {_shown(value)}"


def _text(data: Data, field: str) -> tuple[str, str] | None:
    value = data.get(field, "")
    return None if type(value) is str else (field, f"must be text, got {_shown(value)}")


def _confidence(data: Data) -> tuple[str, str] | None:
    value = data.get("confidence", 0)
    if _number(value) and 0 <= value <= 1:
        return None
    return "confidence", f"must be a number from 0 to 1, got {_shown(value)}"


def trading_data(data: Data) -> tuple[str, str] | None:
    """A trade, quote or candle: `symbol` and `price`, maybe `volume`."""
    symbol = data.get("symbol")
    if type(symbol) is not str or not symbol:
        return "symbol", f"must be non-empty text, got {_shown(symbol)}"
    if "price" not in data:
        return "price", "is required"
    return _at_least_zero(data, "price") or (
        _at_least_zero(data, "volume") if "volume" in data else None
    )


def tensor_math(data: Data) -> tuple[str, str] | None:
    """A result of a tensor calculation: `calculation_id` and `result`."""
    if data.get("calculation_id") is None:
        return "calculation_id", "is required"
    if "result" not in data:
        return "result", "is required"
    return _text(data, "hash_value") or _text(data, "context_meaning") or _confidence(data)


def ai_decision(data: Data) -> tuple[str, str] | None:
    """A decision taken: by `model` or known by `decision_id`, and the `decision`."""
    if data.get("model") is None and data.get("decision_id") is None:
        return "model", "is required (or decision_id)"
    if data.get("decision") is None:
        return "decision", "is required"
    impact = data.get("impact", 0)
    if not _number(impact):
        return "impact", f"must be a finite number, got {_shown(impact)}"
    return _text(data, "reasoning") or _confidence(data)


def system_health(data: Data) -> tuple[str, str] | None:
    """Measurements of a machine: any fields, at least one."""
    return None if data else ("", "must not be empty")


TYPES: Mapping[str, Check] = {
    "trading_data": trading_data,
    "tensor_math": tensor_math,
    "ai_decision": ai_decision,
    "system_health": system_health,
}


class Types:
    """The built-in types and those that users registered."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = dict(TYPES)
        self._schemas: dict[str, dict[str, Any]] = {}
        self._unruled: set[str] = set()  # valid names seen without a rule, bounded

    def check(self, name: str, data: Data) -> tuple[str, str] | None:
        """None if `data` is good for the type `name`, else the field and what is wrong."""
        check = self._checks.get(name)
        if check is not None:
            problem = check(data)
            return problem and (f"data.{problem[0]}".rstrip("."), problem[1])
        if name not in self._unruled:
            if not TYPE_NAME.fullmatch(name):
                return "type", f"must match [a-z][a-z0-9_]{{0,63}}, got {_shown(name)}"
            if len(self._unruled) < 10_000:
                self._unruled.add(name)
        return None

    def unruled(self, name: str) -> bool:
        """Whether items of the type `name` need nothing but an object as their data."""
        return name not in self._checks and TYPE_NAME.fullmatch(name) is not None

    def register(self, name: str, schema: dict[str, Any]) -> None:
        """Add a custom type, or replace its schema. References to other documents are refused."""
        if not TYPE_NAME.fullmatch(name):
            raise InvalidRequest(f"name must match [a-z][a-z0-9_]{{0,63}}, got {_shown(name)}")
        if name in TYPES:
            raise InvalidRequest(f"name {name!r} is built in and cannot be changed")
        try:
            validator = jsonschema_rs.validator_for(
                schema,
                retriever=_refuse,
                pattern_options=jsonschema_rs.RegexOptions(),  # linear time, like every pattern
            )
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as exc:
            raise InvalidRequest(f"schema of {name!r} is not a usable JSON Schema: {exc}") from exc
        self._checks[name] = _schema_check(validator)
        self._schemas[name] = schema

    def describe(self) -> list[dict[str, Any]]:
        """All types: name, whether built in, and what is demanded."""
        built_in = [
            {"name": name, "built_in": True, "description": check.__doc__}
            for name, check in TYPES.items()
        ]
        custom = [
            {"name": name, "built_in": False, "schema": schema}
            for name, schema in self._schemas.items()
        ]
        return built_in + custom


def _refuse(uri: str) -> Any:
    raise ValueError(f"reference to another document is not allowed: {uri}")


def _schema_check(validator: Any) -> Check:
    def check(data: Data) -> tuple[str, str] | None:
        for error in validator.iter_errors(data):
            return ".".join(str(part) for part in error.instance_path), str(error.message)[:300]
        return None

    return check
