"""The web process: protocol only. Run by the supervisor as `python -m server.web`."""

# ruff: noqa: E402 - the standard library is patched before anything else is imported
from __future__ import annotations

from nodes.adapters.parent import announce_ready, announce_refused, die_with_parent
from server import runtime
from server.child import WEB_WORKER, read_settings, settle, start_logs

die_with_parent()
settings = read_settings()
try:
    runtime.patch(settings.async_mode)
except ModuleNotFoundError as exc:
    announce_refused(f"async_mode={settings.async_mode!r}: needs `pip install {exc.name}`")
    raise SystemExit(1) from exc

import logging
import os
import time
from functools import partial

import psutil

from nodes.adapters.lease_local import owner
from server.accepting import raise_limit
from server.agent_client import AgentClient, AgentUnavailable
from server.factory import create_app
from server.lead import Lead
from server.live import LiveFeed
from server.paths import agent_socket, web_socket
from server.plain_http import PlainHttp
from server.siblings import Siblings

log = logging.getLogger(__name__)
AGENT_WAIT_S = 600.0


def main() -> None:
    """Serve until SIGTERM."""
    start_logs(settings, "web")
    raise_limit()
    several = settings.web_workers > 1
    if several and settings.async_mode != "eventlet":
        announce_refused(f"web_workers={settings.web_workers}: needs async_mode eventlet")
        raise SystemExit(1)
    agent = AgentClient(agent_socket(settings))
    _wait_for(agent)
    try:
        sock = runtime.listen(settings.host, settings.port, shared=several)
    except OSError as exc:
        announce_refused(f"port={settings.port}: {exc}; choose another with --port")
        raise SystemExit(1) from exc
    feed = LiveFeed(agent, runtime.offload(settings.async_mode))
    feed.follows = bool(settings.peers)
    feed.start()
    lead = Lead(agent)
    lead.start()
    number = int(os.environ.get(WEB_WORKER, "0"))
    siblings = Siblings(number, settings.web_workers, partial(web_socket, settings))
    app, _ = create_app(settings, agent, feed, siblings, lead)
    if several:
        metrics = app.extensions["web_metrics"].registry
        runtime.serve_beside(siblings.private(app, metrics), siblings.listen())
    for part in app.extensions["delivery"]:
        part.start()
    settle()
    announce_ready(f"http://{settings.host}:{sock.getsockname()[1]}/")
    plain = PlainHttp(app.wsgi_app, app.extensions["express"], settings.max_body_bytes)
    busy = app.extensions["in_flight"].drain
    runtime.serve(app, sock, settings.async_mode, busy=busy, plain=plain)


def _wait_for(agent: AgentClient) -> None:
    """Until this node's own agent answers: another node may own the data folder already."""
    deadline = time.monotonic() + AGENT_WAIT_S
    while True:
        try:
            agent.json("as_of")
            if _is_sibling(owner(settings.data_dir)):
                return
        except AgentUnavailable:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def _is_sibling(pid: int | None) -> bool:
    try:
        return pid is not None and psutil.Process(pid).ppid() == os.getppid()
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    main()
