"""The supervisor as a machine: what it does in each situation, then random lives of a node."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.supervisor import (
    LONGEST_PAUSE_S,
    Action,
    Announce,
    ChildSpec,
    Event,
    Exited,
    Finish,
    Kill,
    Ready,
    Refused,
    Say,
    Spawn,
    StopAsked,
    Supervisor,
    Terminate,
    Tick,
)

AGENT = ChildSpec("agent", ("agent",), ready_timeout_s=10)
WORKER = ChildSpec("worker", ("worker",), ready_timeout_s=10, required=False)
WEB = ChildSpec("web", ("web",), ready_timeout_s=10)


def play(machine: Supervisor, *events: tuple[float, Event]) -> list[list[Action]]:
    """Feed the events and return what each one led to, without the lines for the operator."""
    return [
        [action for action in machine.step(event, now) if not isinstance(action, Say)]
        for now, event in events
    ]


def ready_node(now: float = 0.0) -> Supervisor:
    machine = Supervisor([AGENT, WORKER, WEB])
    play(machine, (now, Tick()), (now, Ready("agent")))
    play(machine, (now, Ready("worker")), (now, Ready("web")))
    return machine


def test_children_start_in_order_each_after_the_required_ones_before_it() -> None:
    assert play(
        Supervisor([AGENT, WORKER, WEB]),
        (0, Tick()),
        (1, Ready("agent", "v1")),
        (2, Ready("web", "http://x")),
        (3, Ready("worker")),
    ) == [
        [Spawn("agent")],
        [Spawn("worker"), Spawn("web")],  # the optional worker holds nobody up
        [Announce({"agent": "v1", "worker": "", "web": "http://x"})],
        [],
    ]


def test_a_child_that_waits_by_itself_loads_beside_those_it_needs() -> None:
    web = ChildSpec("web", ("web",), waits=True)
    assert play(
        Supervisor([AGENT, WORKER, web]),
        (0, Tick()),
        (1, Ready("agent")),
        (2, Ready("web")),
    ) == [
        [Spawn("agent"), Spawn("web")],
        [Spawn("worker")],
        [Announce({"agent": "", "worker": "", "web": ""})],
    ]


def test_pauses_double_up_to_ten_seconds() -> None:
    machine, now, pauses = ready_node(), 1.0, []
    for _ in range(8):
        machine.step(Exited("agent", -9), now)
        due = machine.next_tick()
        assert due is not None
        pauses.append(round(due - now, 3))
        assert play(machine, (due - 0.01, Tick()), (due, Tick())) == [[], [Spawn("agent")]]
        machine.step(Ready("agent"), due)
        now = due + 1
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10]


def test_a_healthy_minute_resets_the_pause() -> None:
    machine = ready_node()
    play(machine, (1, Exited("web", 1)), (2, Tick()), (2, Ready("web")), (3, Exited("web", 1)))
    play(machine, (4, Tick()), (4, Ready("web")), (64, Exited("web", 1)))
    assert machine.next_tick() == pytest.approx(64.2)


def test_a_restart_is_announced_to_the_operator_only() -> None:
    machine = ready_node()
    assert machine.step(Exited("web", -9), 1) == [
        Say("web ended (SIGKILL); starting it again in 0.2 s")
    ]
    assert machine.step(Tick(), 1.2) == [Spawn("web")]
    assert machine.step(Ready("web"), 1.5) == [Say("web is ready again")]


def test_five_failed_starts_in_a_row_stop_the_node() -> None:
    machine = Supervisor([AGENT, WEB])
    play(machine, (0, Tick()), (0, Ready("agent")))
    now = 0.0
    for _ in range(4):
        play(machine, (now, Exited("web", 3)))
        now = machine.next_tick() or pytest.fail("nothing due")
        play(machine, (now, Tick()))
    assert play(machine, (now, Exited("web", 3)), (now, Exited("agent", 0))) == [
        [Terminate("agent")],
        [Finish(1, "web cannot start: exit status 3")],
    ]


@pytest.mark.parametrize("name", ["worker", "web"])
def test_what_is_optional_or_was_ready_is_tried_for_ever(name: str) -> None:
    machine, now = ready_node(), 1.0
    for _ in range(20):
        assert play(machine, (now, Refused(name, "the disk is full")), (now, Exited(name, 1))) == [
            [],
            [],
        ]
        before, now = now, machine.next_tick() or pytest.fail("nothing due")
        assert now - before <= LONGEST_PAUSE_S
        assert play(machine, (now, Tick())) == [[Spawn(name)]]


def test_a_refused_first_start_is_final_and_says_why() -> None:
    machine = Supervisor([AGENT, WEB])
    assert play(
        machine,
        (0, Tick()),
        (1, Refused("agent", "data is in use by process 7")),
        (1, Exited("agent", 1)),
    ) == [[Spawn("agent")], [], [Finish(1, "agent cannot start: data is in use by process 7")]]


def test_a_child_that_is_never_ready_is_killed_and_tried_again() -> None:
    machine = Supervisor([AGENT])
    assert play(machine, (0, Tick()), (9.9, Tick()), (10, Tick()), (10.1, Tick())) == [
        [Spawn("agent")],
        [],
        [Kill("agent")],
        [],
    ]
    machine.step(Exited("agent", -9), 10.2)
    assert machine.step(Tick(), 10.4) == [Spawn("agent")]


def test_a_stop_goes_in_reverse_order_and_is_clean() -> None:
    assert play(
        ready_node(),
        (5, StopAsked()),
        (5.1, Exited("web", 0)),
        (5.2, Exited("worker", 0)),
        (5.3, StopAsked()),
        (5.4, Exited("agent", 0)),
        (5.5, Tick()),
    ) == [
        [Terminate("web")],
        [Terminate("worker")],
        [Terminate("agent")],
        [],
        [Finish(0)],
        [],
    ]


def test_a_stubborn_child_does_not_cost_the_others_their_grace() -> None:
    machine = Supervisor([AGENT, WEB], stop_grace_s=8)
    play(machine, (0, Tick()), (0, Ready("agent")), (0, Ready("web")))
    assert play(
        machine,
        (10, StopAsked()),
        (13.9, Tick()),
        (14, Tick()),
        (14.5, Exited("agent", 0)),
        (18, Tick()),
        (18.1, Exited("web", -9)),
    ) == [
        [Terminate("web")],
        [],
        [Terminate("agent")],
        [],
        [Kill("web")],
        [Finish(1, "web did not stop within 8 s")],
    ]


def test_a_second_interrupt_kills_at_once() -> None:
    machine = ready_node()
    assert play(machine, (1, StopAsked()), (1.5, StopAsked(at_once=True))) == [
        [Terminate("web")],
        [Kill("web"), Kill("worker"), Kill("agent")],
    ]


def test_a_stop_before_anything_runs_ends_at_once() -> None:
    assert play(Supervisor([AGENT]), (0, StopAsked())) == [[Finish(0)]]


class World:
    """Children as the machine sees them: who runs, and nothing the machine could not know."""

    def __init__(self, specs: Sequence[ChildSpec]) -> None:
        self.machine, self.running, self.now = Supervisor(specs), set[str](), 0.0
        self.finish: Finish | None = None
        self.step(Tick())

    def step(self, event: Event) -> None:
        if isinstance(event, Exited):
            self.running.discard(event.name)
        for action in self.machine.step(event, self.now):
            assert self.finish is None, "acted after the end"
            match action:
                case Spawn(name):
                    assert name not in self.running, "two processes of one name"
                    self.running.add(name)
                case Terminate(name) | Kill(name):
                    assert name in self.running, "signalled a process that is gone"
                case Finish():
                    assert not self.running, "finished before the children"
                    self.finish = action

    def until_due(self) -> bool:
        due = self.machine.next_tick()
        if due is None:
            return False
        assert due > self.now, "the loop would spin"
        self.now = due
        self.step(Tick())
        return True


MOVES = st.tuples(
    st.sampled_from(["ready", "refused", "exit", "wait", "due", "stop", "stop now"]),
    st.sampled_from(["agent", "worker", "web"]),
    st.floats(0, 90),
)


@given(st.lists(MOVES, max_size=40))
def test_any_life_keeps_the_invariants_and_can_be_ended(
    moves: list[tuple[str, str, float]],
) -> None:
    world = World([AGENT, WORKER, WEB])
    for what, name, seconds in moves:
        if what in ("ready", "refused", "exit") and name in world.running:
            told: dict[str, Event] = {"ready": Ready(name), "refused": Refused(name, "no")}
            world.step(told.get(what, Exited(name, 1)))
        elif what == "wait":
            world.now += seconds
            world.step(Tick())
        elif what == "due":
            world.until_due()
        elif what.startswith("stop"):
            world.step(StopAsked(at_once=what == "stop now"))
    world.step(StopAsked())
    asked_at = world.now
    while world.until_due():  # nobody listens: all must be killed within the grace
        assert world.now <= asked_at + 8.001
    for name in sorted(world.running):
        world.step(Exited(name, -9))
    assert world.finish is not None
