"""A library loaded without one of its optional dependencies."""

from __future__ import annotations

import importlib
import sys

import pytest

from shared_storage.adapters.leaving_out import leaving_out


def test_a_name_cannot_be_imported_inside_and_can_outside() -> None:
    sys.modules.pop("colorsys", None)
    with leaving_out("colorsys"), pytest.raises(ImportError):
        importlib.import_module("colorsys")
    assert importlib.import_module("colorsys")


def test_what_is_loaded_already_stays() -> None:
    module = importlib.import_module("colorsys")
    with leaving_out("colorsys"):
        assert importlib.import_module("colorsys") is module
    assert sys.modules["colorsys"] is module
