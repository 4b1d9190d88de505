"""The torch worker process. Run by the supervisor as `python -m server.worker`."""

# ruff: noqa: E402 - torch takes seconds to import, and the parent may be killed meanwhile
from __future__ import annotations

from nodes.adapters.parent import announce_ready, die_with_parent

die_with_parent()

from ai_bridge.adapters.worker import run_worker
from server.child import read_settings, start_logs
from server.paths import worker_socket


def main() -> None:
    """Serve the agent until SIGTERM."""
    settings = read_settings()
    start_logs(settings, "worker")
    announce_ready()
    run_worker(
        str(worker_socket(settings)),
        str(settings.data_dir / "torch"),
        device=settings.torch_device,
        threads=settings.torch_threads,
    )


if __name__ == "__main__":
    main()
