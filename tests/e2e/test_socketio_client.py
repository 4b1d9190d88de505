"""The official JavaScript client of Socket.IO, unmodified, in a browser."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests.e2e.test_dashboard import ARGS, CHROMIUM
from tests.faults.producers import Producers
from tests.faults.storm import in_batches
from tests.faults.test_faults import lines
from tests.node_process import NodeProcess, wait_for

CLIENT = "socket.io-client@4.8.1"
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed"),
]
FOLLOW = """([options, after]) => {
  window.seen = [];
  window.gaps = [];
  window.transports = [];
  let cursor = after;
  const socket = io(options);
  socket.on("connect", async () => {
    window.transports.push(socket.io.engine.transport.name);
    const answer = await socket.emitWithAck("subscribe", { after: cursor });
    if (!answer.ok) throw new Error(JSON.stringify(answer));
  });
  socket.on("context", (event) => {
    cursor = event.cursor;
    window.seen.push(...event.items.map((item) => item.offset));
  });
  socket.on("gap", (gap) => window.gaps.push(gap));
  window.socket = socket;
}"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The client as its package ships it to browsers."""
    folder = tmp_path_factory.mktemp("npm")
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", CLIENT]
    if subprocess.run(install, cwd=folder, check=False, timeout=120).returncode:
        pytest.skip("npm's registry cannot be reached")
    return (folder / "node_modules/socket.io-client/dist/socket.io.min.js").read_text()


@pytest.mark.parametrize("transports", [None, ["websocket"], ["polling"]])
def test_it_follows_through_kills_of_the_web_process(
    transports: list[str] | None, script: str, tmp_path: Path
) -> None:
    """It begins with polling by default, and upgrades; items come once, in order, over kills."""
    options = {"transports": transports} if transports else {}
    with NodeProcess(tmp_path) as node, sync_playwright() as playwright:
        before = node.client.ingest({"type": "first", "data": {}})["cursor"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        page = browser.new_page()
        page.goto(f"{node.url}/healthz")
        page.evaluate(script)
        page.evaluate(FOLLOW, [options, before])
        batches = in_batches(lines(20_000), 20)
        producers = Producers(node.port, batches, threads=1, seed=1)
        producers.start()
        try:
            for connected in (1, 2):
                page.wait_for_function(
                    f"transports.length >= {connected} && seen.length > {50 * connected}"
                )
                web = node.child("server.web")
                os.kill(web, signal.SIGKILL)
                wait_for(lambda web=web: web not in node.pids(), "the web process to end")
                node.wait_ready()
            page.wait_for_function("transports.length >= 3 && seen.length > 100")
        finally:
            producers.stop()
        wanted = list(range(1, int(node.client.newest().split(":")[1]) + 1))
        page.wait_for_function(f"seen.length >= {len(wanted)}")
        assert page.evaluate("seen") == wanted
        assert page.evaluate("gaps") == []
        if transports != ["polling"]:
            page.wait_for_function('socket.io.engine.transport.name === "websocket"')
        browser.close()
