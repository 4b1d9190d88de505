"""The torch worker process. Run by the supervisor as `python -m server.worker`."""

from __future__ import annotations

from ai_bridge.adapters.worker import run_worker
from nodes.adapters.parent import announce_ready, die_with_parent
from server.child import read_settings, start_logs
from server.paths import worker_socket


def main() -> None:
    """Serve the agent until SIGTERM."""
    die_with_parent()
    settings = read_settings()
    start_logs(settings, "worker")
    announce_ready()
    run_worker(str(worker_socket(settings)), str(settings.data_dir / "torch"))


if __name__ == "__main__":
    main()
