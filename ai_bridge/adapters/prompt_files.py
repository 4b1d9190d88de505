"""Prompt templates in files: the user's folder first, then those that come with the package."""

from __future__ import annotations

from pathlib import Path

from ai_bridge.prompting import Templates
from ai_bridge.specs import refused

OURS = Path(__file__).resolve().parents[1] / "prompts"
MAX_BYTES = 256 << 10


def load(name: str, folder: Path | None) -> Templates:
    """Templates `NAME.system.txt`, `NAME.user.txt`, `NAME.repair.txt`.

    A part that NAME lacks is the default's; raises InvalidRequest where it has none at all.
    """
    parts = {part: _read(name, part, folder) for part in ("system", "user", "repair")}
    if not any(parts.values()):
        raise refused("prompt", f"{name!r}: there is no such template in {folder}")
    return Templates(**{part: text or _default(part) for part, text in parts.items()})


def _read(name: str, part: str, folder: Path | None) -> str | None:
    for place in (folder, OURS):
        if place is not None and (place / f"{name}.{part}.txt").is_file():
            with (place / f"{name}.{part}.txt").open("rb") as file:
                return file.read(MAX_BYTES).decode()
    return None


def _default(part: str) -> str:
    return (OURS / f"default.{part}.txt").read_text("utf-8")
