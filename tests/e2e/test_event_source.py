"""A browser's own `EventSource` and `fetch`, on a page of another site, through a real nginx."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Error, sync_playwright

from tests.e2e.test_dashboard import ARGS, CHROMIUM
from tests.nginx import NGINX, Nginx
from tests.node_process import NodeProcess
from tests.streaming import Producers

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

READ = """async () => {
  const headers = { "User-Agent": "curl/8.0", "Accept-Language": "" };
  return (await fetch("/api/context/latest", { headers, referrerPolicy: "no-referrer" })).status;
}"""
FOLLOW = """([node, after]) => {
  const params = new URLSearchParams({ after });
  params.append("subscription", "all:" + new URLSearchParams({ source: "a & b" }));
  params.append("subscription", "sevens:" + new URLSearchParams({ query: '"n":7' }));
  window.seen = [];
  window.opened = 0;
  const source = new EventSource(`${node}/api/context/stream?${params}`);
  source.addEventListener("open", () => (window.opened += 1));
  source.addEventListener("context", (event) => {
    const { offset, subscriptions } = JSON.parse(event.data);
    window.seen.push([offset, subscriptions.join()]);
  });
}"""
STORE = """async ([node, item]) => {
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify(item);
  return (await fetch(`${node}/api/context/ingest`, { method: "POST", headers, body })).status;
}"""


class _Page(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>another site</title>")


@pytest.fixture
def site() -> Iterator[str]:
    """Origin of another site."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_a_page_of_another_site_follows_through_kills_of_the_proxy(
    site: str, tmp_path: Path
) -> None:
    env = {"CONTEXT_CORS_ORIGINS": site}
    item = {"type": "note", "source": "a & b", "data": {"n": 7}}
    with (
        NodeProcess(tmp_path / "data", env=env) as node,
        Nginx(tmp_path / "nginx", node.port) as nginx,
        sync_playwright() as playwright,
    ):
        before = node.client.ingest({"type": "first", "data": {}})["cursor"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        page = browser.new_page()
        page.goto(site)
        assert page.evaluate(STORE, [nginx.url, item]) == 201
        page.evaluate(FOLLOW, [nginx.url, before])
        page.wait_for_function("seen.length >= 1")
        with Producers(node, threads=1, **item) as producers:
            for opened in (1, 2):
                page.wait_for_function(f"opened === {opened} && seen.length > {opened * 50}")
                nginx.kill9()
                nginx.start()
            page.wait_for_function("opened === 3")
        wanted = [1, *producers.offsets()]
        page.wait_for_function(f"seen.length >= {len(wanted)}")
        assert page.evaluate("seen") == [[offset, "all,sevens"] for offset in wanted]
        page.goto(f"{site.replace('127.0.0.1', 'localhost')}/")  # a site that is not listed
        with pytest.raises(Error, match="Failed to fetch"):
            page.evaluate(STORE, [nginx.url, item])
        browser.close()


def test_a_page_whose_name_is_made_to_point_here_reads_nothing(tmp_path: Path) -> None:
    """DNS rebinding: for the browser the node is the page's own origin, even in disguise."""
    with NodeProcess(tmp_path / "data") as node, sync_playwright() as playwright:
        rules = "--host-resolver-rules=MAP *.example 127.0.0.1"
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGS, rules])
        page = browser.new_page()
        refused = page.goto(f"http://evil.example:{node.port}/")
        assert refused
        assert refused.status == 421
        assert page.evaluate(READ) == 421
        browser.close()
