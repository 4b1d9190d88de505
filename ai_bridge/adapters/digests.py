"""What a decision was made with, as SHA-256: the program's code, and each model's configuration.

Weights that learn or can be replaced have digests of their own, which come with the answers.
"""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import Any

import msgspec

from ai_bridge.ports import Model

PACKAGE = Path(__file__).resolve().parents[1]
TUNABLE = ("weight", "min_confidence", "timeout_s", "enabled", "concurrency")  # recorded elsewhere


def code_version() -> str:
    """Digest of this package's source files: each path's and each content's digest, by path."""
    hashed = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix().encode()
        hashed.update(hashlib.sha256(name).digest() + hashlib.sha256(path.read_bytes()).digest())
    return hashed.hexdigest()


def digest_of(model: Model) -> str:
    """Digest of how a model is configured: JSON with sorted keys of what `_parts` tells."""
    return hashlib.sha256(msgspec.json.encode(_parts(model), order="sorted")).hexdigest()


def _parts(model: Model) -> dict[str, Any]:
    """Kind and name; its spec without what can be changed later; its prompts; its source file."""
    told: dict[str, Any] = {"kind": model.kind, "name": model.name}
    spec, prompts = getattr(model, "spec", None), getattr(model, "templates", None)
    if spec is not None:
        shown = msgspec.to_builtins(spec)
        told["spec"] = {name: value for name, value in shown.items() if name not in TUNABLE}
    if prompts is not None:
        told["prompts"] = {part: getattr(prompts, part) for part in ("system", "user", "repair")}
    told["source"] = _source(getattr(model, "judge", None) or getattr(model, "own_class", None))
    return told


def _source(made_by: Any) -> str | None:
    """Digest of the file that defines a function or class; None where there is no file."""
    try:
        path = inspect.getsourcefile(made_by) if made_by is not None else None
        return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else None
    except (TypeError, OSError):
        return None
