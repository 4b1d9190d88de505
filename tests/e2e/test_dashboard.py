"""The first page in a real browser against a real node: what a person sees and does."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.node_process import NodeProcess, wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

# Headless, and silent: without these Chromium calls its maker at every start.
ARGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
]
PATIENCE_MS = 20_000
HOSTILE = "<img src=x onerror=document.title='broken'>"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    env = {"CONTEXT_HEALTH_INTERVAL_S": "1"}
    folder = tmp_path_factory.mktemp("page")
    with NodeProcess(folder, None, "--feed", "simulated", env=env) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser, node: NodeProcess) -> Iterator[Page]:
    """The page at a desk; it must not complain in the console, whatever the test does."""
    opened = browser.new_page(viewport={"width": 1440, "height": 900})
    opened.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on(
        "console", lambda said: complaints.append(said.text) if said.type == "error" else None
    )
    opened.goto(node.url)
    expect(opened.locator("#connection")).to_have_attribute("data-state", "live")
    yield opened
    opened.close()
    # A refused search is logged by the browser itself; everything else is a fault.
    assert [said for said in complaints if "400" not in said] == []


def test_everything_is_live_at_once(page: Page) -> None:
    expect(page.locator("#charts canvas")).to_have_count(3)
    expect(page.locator("#market-simulated")).to_be_visible()
    expect(page.locator("#nodes-list")).to_contain_text("leader")
    expect(page.locator("#nodes-list")).to_contain_text("CPU")
    first = page.locator("#live-list > *").first.inner_text()
    expect(page.locator("#live-list > *").first).not_to_have_text(first)
    expect(page.locator("#stat-items")).not_to_have_text("0")


def test_a_search_marks_what_it_found_and_explains_what_is_wrong(
    page: Page, node: NodeProcess
) -> None:
    node.client.ingest({"type": "note", "data": {"text": "wo liegt die nädel im heu"}})
    page.fill("#search-form [name=query]", "nädel")
    page.press("#search-form [name=query]", "Enter")
    expect(page.locator("#search-results mark")).to_have_text("nädel")
    expect(page.locator("#search-status")).to_contain_text("1 item")
    page.fill("#search-form [name=query]", "(unclosed")
    page.check("#search-form [name=regex]", force=True)
    expect(page.locator("#search-status")).to_contain_text("missing )")


def _trades(node: NodeProcess) -> int:
    stats = node.client.get("/api/context/stats").json()
    count: int = stats["types"].get("trading_data", 0)
    return count


def test_a_decision_shows_every_vote(page: Page, node: NodeProcess) -> None:
    wait_for(lambda: _trades(node) > 200, "enough trades for models to judge", seconds=60)
    page.get_by_role("button", name="Decide").first.click()
    card = page.locator("#decisions-list details").first
    expect(card).to_be_visible()
    card.locator("summary").click()
    for model in ("momentum", "mean_reversion", "order_flow"):
        expect(card.locator(".votes")).to_contain_text(model)


def test_how_the_consensus_does_is_shown(page: Page, node: NodeProcess) -> None:
    wait_for(lambda: _trades(node) > 200, "enough trades for models to judge", seconds=60)
    expect(page.locator("#consensus-empty")).to_be_visible()
    newest = node.client.get("/api/context/latest?type=trading_data&limit=100").json()["items"]
    symbols = sorted({item["data"]["symbol"] for item in newest})[:2]
    for number in range(45):
        body = {"symbols": [symbols[number % 2]]}
        decided = node.client.post("/api/context/ai/decide", json=body).json()
        outcome = {"outcome": decided["final_decision"] if number % 3 else "sell"}
        path = f"/api/context/ai/decisions/{decided['decision_id']}/outcome"
        assert node.client.post(path, json=outcome).status_code == 200
    card = page.locator("#consensus-body")
    expect(card).to_contain_text("45")  # told by the stream
    expect(card).to_contain_text("of 90% stated")
    expect(card).to_contain_text("(undelayed)")
    expect(card.locator("svg")).to_have_count(2)
    expect(card.locator(".meters dt")).to_have_count(3)
    page.locator("#consensus-symbol").select_option(symbols[1])
    expect(card).to_contain_text(f"{symbols[1]}: 22 outcomes")


def test_trading_is_started_on_paper_seen_and_stopped(page: Page, node: NodeProcess) -> None:
    state = page.locator("#trading-state")
    expect(state).to_have_text("off")
    page.locator("#trading-form select").select_option("high_volume")
    page.get_by_role("button", name="Start on paper").click()
    expect(state).to_have_text("high volume · paper")
    expect(page.locator("#trading-body")).to_contain_text("10,000.00")
    expect(page.locator("#trading-form")).to_be_hidden()
    page.get_by_role("button", name="Stop trading").click()
    expect(state).to_have_text("off")
    expect(page.locator("#trading-body")).to_contain_text("Stopped")
    node.client.post("/api/context/trading/start", json={"mode": "balanced"})
    expect(state).to_have_text("balanced · paper")  # told by the stream
    page.get_by_role("button", name="Emergency stop").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop trading").click()
    expect(state).to_have_text("emergency stop")
    expect(page.locator("#trading-form")).to_be_hidden()
    page.get_by_role("button", name="Resume…").click()
    page.get_by_role("button", name="Resume trading").click()
    expect(state).to_have_text("off")


def test_what_is_stored_can_never_become_part_of_the_page(page: Page, node: NodeProcess) -> None:
    node.client.ingest({"type": "note", "source": HOSTILE, "data": {"text": HOSTILE}})
    page.fill("#search-form [name=query]", "onerror")
    page.press("#search-form [name=query]", "Enter")
    expect(page.locator("#search-results")).to_contain_text("<img src=x")
    assert page.locator("img[src=x]").count() == 0
    assert "broken" not in page.title()


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_a_phone_shows_it_all_without_scrolling_sideways(
    browser: Browser, node: NodeProcess, scheme: str, tmp_path: Path
) -> None:
    phone = browser.new_page(
        viewport={"width": 390, "height": 844},
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    phone.goto(node.url)
    expect(phone.locator("#connection")).to_have_attribute("data-state", "live")
    expect(phone.locator("#charts canvas").first).to_be_visible()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    red, green, blue = phone.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number).slice(0, 3)"
    )
    assert (red + green + blue < 384) == (scheme == "dark")
    phone.close()


def test_the_page_asks_for_the_token_and_streams_by_tickets(
    browser: Browser, tmp_path: Path
) -> None:
    env = {"CONTEXT_API_TOKEN": "correct-horse-battery", "CONTEXT_HEALTH_INTERVAL_S": "0.2"}
    node = NodeProcess(tmp_path / "data", env=env)
    node.client.headers["Authorization"] = f"Bearer {env['CONTEXT_API_TOKEN']}"
    with node:
        page = browser.new_page()
        page.goto(node.url)
        for token in ("this-is-not-the-token", env["CONTEXT_API_TOKEN"]):
            expect(page.locator("#token")).to_be_visible()
            page.fill("#token [name=token]", token)
            page.press("#token [name=token]", "Enter")
        expect(page.locator("#connection")).to_have_attribute("data-state", "live")
        expect(page.locator("#live-list > *").nth(3)).to_be_visible()
        os.kill(node.child("server.web"), signal.SIGKILL)  # a used ticket opens nothing again
        expect(page.locator("#connection")).to_have_attribute("data-state", "reconnecting")
        expect(page.locator("#connection")).to_have_attribute("data-state", "live")
        page.close()
