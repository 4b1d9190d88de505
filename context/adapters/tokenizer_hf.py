"""A model's own tokenizer, from its local `tokenizer.json`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer

from context.errors import InvalidRequest


def load(path: Path) -> Callable[[str], int]:
    """Function that counts a text's tokens, without the special ones a chat template adds.

    Raises InvalidRequest naming the file if it is not there or is not a tokenizer.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    # The library raises bare Exception for a missing file as for a malformed one.
    except Exception as exc:
        raise InvalidRequest(f"tokenizer {str(path)!r} cannot be read: {exc}") from exc
    # Sentence encoders ship with truncation to 128 or 512 tokens and padding: both would lie here.
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    return count
