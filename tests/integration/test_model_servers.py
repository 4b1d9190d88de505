"""Models behind HTTP, asked for real on loopback, with everything that a server can do wrong."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ai_bridge import Bridge, Guard, Question
from ai_bridge.adapters.http import Http
from ai_bridge.adapters.kinds import Services, build
from ai_bridge.breaker import Breaker
from ai_bridge.bridge import Decision
from ai_bridge.consensus import replay
from ai_bridge.errors import InvalidRequest
from ai_bridge.models.builtin import builtin_models
from ai_bridge.requests import parse
from ai_bridge.specs import ModelSpec
from ai_bridge.votes import Vote
from context.packing import PackRequest, pack
from context.tokens import NAME, estimate
from tests.model_server import VOTE, WINDOW, ModelServer

CHAT, GENERATE = "/v1/chat/completions", "/api/v1/generate"
KINDS = {"openai": CHAT, "koboldcpp": GENERATE}
SLACK_S = 1.0  # for a busy machine
SHORT_S = 0.5


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


def item(n: int) -> bytes:
    return json.dumps(
        {"id": f"e:{n}", "offset": n, "type": "note", "source": "desk", "timestamp": 1000.0 + n,
         "data": {"symbol": "X", "n": n}}
    ).encode()  # fmt: skip


def packed(count: int) -> bytes:
    items = [(n, item(n), item(n)) for n in reversed(range(count))]
    return pack(items, PackRequest(limit=10_000), estimate, NAME, f"e:{count - 1}").body


def asking(count: int = 3, **more: Any) -> Question:
    return Question(("X",), {}, now=1234.5, packed=packed(count), **more)


def seated(*specs: Mapping[str, Any], **services: Any) -> Bridge:
    """A bridge of these models alone; call it inside an event loop."""
    bridge, given = Bridge([]), Services(Http(), {"SOME_API_KEY": "s3cret"}, **services)
    for fields in specs:
        spec = parse(dict(fields), ModelSpec)
        model = build(spec, given, trusted=True)
        bridge.add(model, spec.settings(), Guard(Breaker(cooldown_s=0.2)))
    return bridge


def spec_of(server: ModelServer, kind: str = "openai", **more: Any) -> dict[str, Any]:
    return {"name": kind, "kind": kind, "base_url": server.url, "model": "small", **more}


async def decided(bridge: Bridge, question: Question, **options: Any) -> Decision:
    options = {"deadline_s": 10.0, "clock": time.monotonic} | options
    return await bridge.decide(question, **options)


def vote_of(
    server: ModelServer, kind: str, question: Question | None = None, **options: Any
) -> Vote:
    """The model's vote beside one that always votes, whether it is a vote or not."""

    async def scenario() -> Vote:
        bridge = seated(spec_of(server, kind, **options), spec_of(steady, name="steady"))
        decision = await decided(bridge, question or asking())
        return decision.votes[0]

    with ModelServer() as steady:
        steady.say = lambda body: json.dumps({"decision": decisions(body)[0], "confidence": 1})
        return asyncio.run(scenario())


def decisions(body: Mapping[str, Any]) -> list[str]:
    form: list[str] = body["response_format"]["json_schema"]["schema"]["properties"]["decision"][
        "enum"
    ]
    return form


# --- what is asked, and how the answer becomes a vote ---------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_answer_is_a_vote(server: ModelServer, kind: str) -> None:
    vote = vote_of(server, kind)
    assert (vote.status, vote.decision, vote.confidence) == ("ok", "buy", 0.6)
    assert vote.distribution == VOTE["distribution"]
    assert vote.reasoning == "it rises"
    (body,) = server.asked(KINDS[kind])
    shown = body["prompt"] if kind == "koboldcpp" else body["messages"][1]["content"]
    lines = [line for line in shown.splitlines() if " note desk " in line]
    assert [json.loads(line.split(" ", 3)[3])["n"] for line in lines] == [0, 1, 2]
    assert "Decide about: X. Choose among: buy, sell, hold." in shown
    assert body.get("stream", False) is False


def test_the_form_asked_for_falls_back_and_is_remembered(server: ModelServer) -> None:
    server.forms = {"text"}

    async def scenario() -> None:
        bridge = seated(spec_of(server))
        for _ in range(2):
            (vote,) = (await decided(bridge, asking())).votes
            assert vote.status == "ok"

    asyncio.run(scenario())
    tried = [body.get("response_format", {}).get("type") for body in server.asked(CHAT)]
    assert tried == ["json_schema", "json_object", None, None]


def test_options_that_a_model_refuses_are_left_out(server: ModelServer) -> None:
    server.refused = {"max_tokens", "temperature"}
    server.forms = {"json_object"}

    async def scenario() -> None:
        bridge = seated(spec_of(server))
        for _ in range(2):
            assert (await decided(bridge, asking())).votes[0].status == "ok"

    asyncio.run(scenario())
    *_, last = bodies = server.asked(CHAT)
    assert len(bodies) == 5  # both options, the schema, and then it is known
    assert last["max_completion_tokens"] == 512
    assert not {"max_tokens", "temperature"} & last.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_answer_gets_one_repair(server: ModelServer, kind: str) -> None:
    answers = iter(["I would buy.", json.dumps(VOTE), "I would sell.", '{"decision": "up"}'])
    server.say = lambda body: next(answers)
    assert vote_of(server, kind).status == "ok"
    again = json.dumps(server.asked(KINDS[kind])[1])
    assert "I would buy." in again
    assert "not the JSON object asked for" in again
    vote = vote_of(server, kind)
    assert vote.status == "error"
    assert "second attempt" in vote.reasoning
    assert len(server.asked(KINDS[kind])) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_the_prompt_keeps_to_the_window(server: ModelServer, kind: str) -> None:
    window, answer = 2000, 256
    question = asking(2000)
    vote = vote_of(server, kind, question, context_window=window, max_answer_tokens=answer)
    assert vote.status == "ok"
    (body,) = server.asked(KINDS[kind])
    text = body.get("prompt") or "".join(m["content"] for m in body["messages"])
    tokens = len(text) / 3 if kind == "koboldcpp" else estimate(text)
    assert window / 4 < tokens < window - 2 * answer
    assert '"n":1999' in text.replace(" ", "")  # the newest stay
    if kind == "koboldcpp":
        assert body["max_context_length"] == min(window, WINDOW)
    refused = vote_of(server, kind, question, context_window=600, max_answer_tokens=256)
    assert refused.status == "abstained"


def test_decisions_may_be_the_users_own(server: ModelServer) -> None:
    server.say = lambda body: json.dumps({"decision": decisions(body)[1], "confidence": 0.7})
    question = asking(decisions=("go", "wait", "ask"))
    vote = vote_of(server, "openai", question)
    assert vote.distribution == {"go": pytest.approx(0.15), "wait": 0.7, "ask": pytest.approx(0.15)}

    async def builtin() -> None:
        bridge = Bridge(builtin_models())
        with pytest.raises(Exception, match="answers buy, sell, hold only"):
            await decided(bridge, question)

    asyncio.run(builtin())


def test_a_refusal_is_an_abstention(server: ModelServer) -> None:
    said = {"choices": [{"message": {"content": None, "refusal": "I may not."}}]}
    server.say = ""

    async def scenario() -> None:
        bridge = seated(spec_of(server))
        with pytest.raises(Exception, match="abstained: the model refused: I may not"):
            await decided(bridge, asking())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.model_server._Handler._answer", lambda *_: said)
        asyncio.run(scenario())


def test_templates_come_from_the_users_folder(server: ModelServer, tmp_path: Path) -> None:
    (tmp_path / "terse.user.txt").write_text("$symbols? $decisions!\n$context")

    async def scenario() -> None:
        bridge = seated(spec_of(server, prompt="terse"), prompts=tmp_path)
        await decided(bridge, asking())
        with pytest.raises(InvalidRequest, match="no such template"):
            seated(spec_of(server, prompt="absent"), prompts=tmp_path)

    asyncio.run(scenario())
    system, user = server.asked(CHAT)[0]["messages"]
    assert user["content"].startswith("X? buy, sell, hold!\n")
    assert "Answer with one JSON object" in system["content"]


# --- keys -----------------------------------------------------------------------------------


def test_keys_come_from_the_environment_and_go_where_they_may(server: ModelServer) -> None:
    fields = spec_of(server, api_key_env="SOME_API_KEY")

    async def scenario() -> None:
        await decided(seated(fields), asking())

    asyncio.run(scenario())
    assert server.requests[0][2]["authorization"] == "Bearer s3cret"
    spec = parse(fields, ModelSpec)
    environ = {"SOME_API_KEY": "s3cret"}
    for keys in ({}, {"SOME_API_KEY": "https://api.example.org"}):
        with pytest.raises(InvalidRequest, match="may not be sent to"):
            build(spec, Services(Http(), environ, keys), trusted=False)
    build(spec, Services(Http(), environ, {"SOME_API_KEY": server.url}), trusted=False)
    with pytest.raises(InvalidRequest, match="SOME_API_KEY is not set"):
        build(spec, Services(Http(), {}, {}), trusted=True)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"kind": "oracle"}, "kind must be one of openai"),
        ({"base_url": None}, "base_url is needed"),
        ({"base_url": "file:///etc/passwd"}, "must begin with http"),
        ({"base_url": "http://user:secret@host/"}, "must not hold a user name"),
        ({"base_url": "http://host/?key=secret"}, "must not hold a user name"),
        ({"base_url": "http://host:99999"}, "is not a URL"),
        ({"base_url": "http://host/a b"}, "ASCII without spaces"),
        ({"name": "../x"}, "name"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"concurrency": 0}, "concurrency"),
        ({"context_window": 1}, "context_window"),
        ({"api_key_env": "a b"}, "api_key_env"),
        ({"api_key": "s3cret"}, "api_key"),
        ({"prompt": "../../secret"}, "prompt"),
        ({"kind": "custom", "model": "os.system"}, "not a registered class"),
    ],
)
def test_wrong_specs_are_refused_by_name(fields: dict[str, Any], problem: str) -> None:
    whole = {"name": "m", "kind": "openai", "base_url": "http://127.0.0.1:1", **fields}
    with pytest.raises(InvalidRequest, match=problem):
        build(parse(whole, ModelSpec), Services(Http(), {}), trusted=False)


# --- what a server can do wrong -------------------------------------------------------------

FAULTS = {
    "hang": ("timeout", "within its timeout"),
    "hang_in_body": ("timeout", "within its timeout"),
    "dribble": ("timeout", "within its timeout"),
    "dribble_head": ("timeout", "within its timeout"),
    "garbage": ("error", "does not answer in HTTP"),
    "not_json": ("error", "is not JSON: '<html>502"),
    "truncated": ("error", "does not answer in HTTP"),
    "truncated_json": ("error", "is not JSON"),
    "wrong_schema": ("error", ""),
    "too_many": ("unavailable", "HTTP 429"),
    "error_500": ("unavailable", 'HTTP 500: {"error": "out of memory"}'),
    "redirect": ("error", "redirects are not followed"),
    "huge": ("error", "larger than 1048576 bytes"),
    "crumbs": ("error", "comes in more than 10000 pieces"),
    "wait_for_ever": ("error", "comes in more than 10000 pieces"),
    "hang_up": ("error", ""),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_its_status(server: ModelServer, kind: str, fault: str) -> None:
    server.behave(fault)
    started = time.monotonic()
    vote = vote_of(server, kind, timeout_s=SHORT_S)
    assert time.monotonic() - started < SHORT_S + SLACK_S
    status, reason = FAULTS[fault]
    assert vote.status == status, vote.reasoning
    assert reason in vote.reasoning


@pytest.mark.parametrize("kind", KINDS)
def test_a_dead_port_is_unavailable(kind: str) -> None:
    gone = ModelServer()
    gone.close()
    vote = vote_of(gone, kind)
    assert vote.status == "unavailable"
    assert f"no server at 127.0.0.1:{gone.port} (Connect call failed" in vote.reasoning


# --- time -----------------------------------------------------------------------------------


def test_a_dead_model_costs_nothing_after_three_failures_and_comes_back(
    server: ModelServer,
) -> None:
    server.behave("hang")

    async def scenario(steady: ModelServer) -> None:
        bridge = seated(spec_of(server, timeout_s=0.2), spec_of(steady, name="steady", timeout_s=5))
        for _ in range(3):
            assert (await decided(bridge, asking())).votes[0].status == "timeout"
        started, asked = time.monotonic(), len(server.requests)
        decision = await decided(bridge, asking())
        assert decision.votes[0].status == "unavailable"
        assert "not asked after 3 failures" in decision.votes[0].reasoning
        assert decision.votes[0].latency_ms == 0
        assert time.monotonic() - started < 0.15
        assert len(server.requests) == asked
        server.released.set()
        server.behave("well")
        until = time.monotonic() + 10
        while (await decided(bridge, asking(), late_s=5)).votes[0].status != "ok":
            assert time.monotonic() < until
            await asyncio.sleep(0.02)
        assert bridge.describe("openai", time.monotonic())["breaker"]["state"] == "closed"

    with ModelServer() as steady:
        asyncio.run(scenario(steady))


def test_a_probe_is_waited_for_where_nobody_else_votes(server: ModelServer) -> None:
    server.behave("error_500")

    async def scenario() -> None:
        bridge = seated(spec_of(server))
        for _ in range(3):
            with pytest.raises(Exception, match="HTTP 500"):
                await decided(bridge, asking())
        with pytest.raises(Exception, match="not asked after 3 failures"):
            await decided(bridge, asking())
        server.behave("slow", 0.1)
        await asyncio.sleep(0.2)  # the cooldown itself
        assert (await decided(bridge, asking())).votes[0].status == "ok"

    asyncio.run(scenario())


def test_retry_after_is_obeyed(server: ModelServer) -> None:
    server.behave("too_many")

    async def scenario() -> None:
        bridge = seated(spec_of(server))
        for _ in range(3):
            with pytest.raises(Exception, match="HTTP 429"):
                await decided(bridge, asking())
        breaker = bridge.describe("openai", time.monotonic())["breaker"]
        assert breaker["state"] == "open"
        assert 25 < breaker["retry_in_s"] <= 30

    asyncio.run(scenario())
    assert len(server.requests) == 1


def test_late_votes_come_later(server: ModelServer) -> None:
    server.behave("slow", 0.3)

    async def scenario(steady: ModelServer) -> None:
        bridge = seated(spec_of(server), spec_of(steady, name="steady"))
        await decided(bridge, asking(), models=["steady"])  # makes the parts warm
        started = time.monotonic()
        decision = await decided(bridge, asking(), deadline_s=0.15, late_s=5)
        assert time.monotonic() - started < 0.29
        assert [vote.status for vote in decision.votes] == ["timeout", "ok"]
        (late,) = [await task for task in decision.late]
        assert (late.model, late.status, late.decision) == ("openai", "ok", "buy")
        cut = await decided(bridge, asking(), deadline_s=0.05, late_s=0.05)
        (task,) = cut.late
        await asyncio.wait([task])
        assert task.cancelled()

    with ModelServer() as steady:
        asyncio.run(scenario(steady))


def test_a_quorum_decides_without_the_rest(server: ModelServer) -> None:
    server.behave("hang")

    async def scenario(steady: ModelServer) -> None:
        bridge = seated(spec_of(server), spec_of(steady, name="a"), spec_of(steady, name="b"))
        started = time.monotonic()
        decision = await decided(bridge, asking(), min_votes=2)
        assert time.monotonic() - started < SLACK_S
        assert [vote.status for vote in decision.votes] == ["timeout", "ok", "ok"]
        assert "not waited for" in decision.votes[0].reasoning
        decision = await decided(bridge, asking(), min_votes=3, deadline_s=0.2)
        assert [vote.status for vote in decision.votes] == ["timeout", "ok", "ok"]

    with ModelServer() as steady:
        asyncio.run(scenario(steady))


def test_a_second_try_overtakes_a_slow_first_one(server: ModelServer) -> None:
    slow = threading.Event()

    def say(body: Any) -> str:
        if slow.is_set():
            slow.clear()
            server.released.wait(20)
        return json.dumps(VOTE)

    server.say = say

    async def scenario() -> None:
        bridge = seated(spec_of(server))
        for _ in range(10):
            await decided(bridge, asking())
        slow.set()
        started = time.monotonic()
        (vote,) = (await decided(bridge, asking())).votes
        assert vote.status == "ok"
        assert time.monotonic() - started < 5

    asyncio.run(scenario())
    assert len(server.requests) == 12


def test_a_model_is_asked_only_so_much_at_a_time(server: ModelServer) -> None:
    inside, most = [0], [0]
    lock = threading.Lock()

    def say(body: Any) -> str:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        server.released.wait(0.05)
        with lock:
            inside[0] -= 1
        return json.dumps(VOTE)

    server.say = say

    async def scenario() -> None:
        bridge = seated(spec_of(server, concurrency=2))
        made = [decided(bridge, asking(), caller=str(n % 3)) for n in range(9)]
        for decision in await asyncio.gather(*made):
            assert decision.votes[0].status == "ok"
        server.behave("hang")
        busy = [asyncio.create_task(decided(bridge, asking(), deadline_s=0.5)) for _ in range(3)]
        ended = await asyncio.gather(*busy, return_exceptions=True)
        assert sum("its turn did not come" in str(each) for each in ended) == 1
        assert bridge.describe("openai")["queue"] == {"active": 0, "waiting": 0}

    asyncio.run(scenario())
    assert most[0] <= 3  # two, and a second try


def test_the_event_loop_stays_free_whatever_servers_do() -> None:
    """The longest pause of the loop while every fault happens at once."""

    async def scenario(servers: list[ModelServer]) -> float:
        bridge = seated(*(spec_of(s, name=f"m{i}", timeout_s=1) for i, s in enumerate(servers)))
        worst, question = 0.0, asking(300)

        async def watch() -> None:
            nonlocal worst
            while True:
                due = time.monotonic() + 0.005
                await asyncio.sleep(0.005)
                worst = max(worst, time.monotonic() - due)

        watching = asyncio.create_task(watch())
        await decided(bridge, question)
        watching.cancel()
        return worst

    servers = [ModelServer() for _ in range(len(FAULTS) + 1)]
    for server, fault in zip(servers, ["well", *FAULTS], strict=True):
        server.behave(fault)
        server.__enter__()
    try:
        # 15 servers in this very process share the interpreter: the bound is a generous one.
        assert asyncio.run(scenario(servers)) < 0.5
    finally:
        for server in servers:
            server.close()


def test_decisions_with_model_servers_replay(server: ModelServer) -> None:
    server.say = json.dumps({"decision": "sell", "confidence": 0.61234567890123})

    async def scenario() -> dict[str, Any]:
        bridge = seated(spec_of(server), spec_of(server, name="other", weight=0.3))
        decision = await decided(bridge, asking())
        return msgspec.json.decode(msgspec.json.encode(decision.record("d1", term=1)))

    record = asyncio.run(scenario())
    assert record["final_decision"] == "sell"
    assert record["decisions"] == ["buy", "sell", "hold"]
    assert replay(record)["identical"]
