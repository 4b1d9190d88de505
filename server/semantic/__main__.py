"""The process of searches by meaning. Run by the supervisor as `python -m server.semantic`."""

# ruff: noqa: E402 - torch takes seconds to import, and the parent may be killed meanwhile
from __future__ import annotations

from nodes.adapters.parent import announce_ready, die_with_parent

die_with_parent()

from server.child import read_settings, start_logs
from server.paths import semantic_socket
from server.semantic.packages import model_folder
from server.semantic.worker import run_worker


def main() -> None:
    """Serve the agent until SIGTERM."""
    settings = read_settings()
    start_logs(settings, "semantic")
    vectors = settings.data_dir / "semantic"
    run_worker(semantic_socket(settings), vectors, model_folder(), announce_ready)


if __name__ == "__main__":
    main()
