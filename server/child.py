"""How the supervisor hands the resolved settings to its children."""

from __future__ import annotations

import gc
import os
import sys

from server import logs
from server.config import Settings

SETTINGS = "CONTEXT_SETTINGS"
WEB_WORKER = "CONTEXT_WEB_WORKER"  # number of a web process among several


def read_settings() -> Settings:
    """The settings in this child's environment."""
    return Settings.from_json(os.environ[SETTINGS])


def start_logs(settings: Settings, role: str) -> None:
    """Log to standard error as the settings say; `role` names this process in every line."""
    logs.configure(
        role, level=settings.log_level, log_format=settings.log_format, stream=sys.stderr
    )


def settle() -> None:
    """Once started: what is here stays, so that only young garbage is worth looking at."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
