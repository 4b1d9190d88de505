"""Runs a node's children as the supervisor decides: processes, pipes, signals, one loop.

One thread, on purpose: the kernel ends the children when the *thread* that started them dies
(`PR_SET_PDEATHSIG`), and nothing is ever forked without an exec.

Every child leads a session of its own, so a terminal's Ctrl-C reaches the supervisor alone, and a
killed child takes along whatever it had started. `nodes.adapters.parent` is the child's side.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from nodes.adapters.parent import PARENT_FD, PARENT_PID, READY_FD
from nodes.supervisor import (
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

log = logging.getLogger(__name__)

OnReady = Callable[[Mapping[str, str]], None]
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LINE_BYTES = 4096
_NOT_RUNNABLE = 127  # exit status, as a shell has it


def run_node(specs: Sequence[ChildSpec], *, on_ready: OnReady, stop_grace_s: float = 8.0) -> int:
    """Run the children until SIGTERM or SIGINT; a second SIGINT kills them at once.

    `on_ready` gets each child's detail by its name, once, when all required ones are ready.
    Returns 0 after a clean stop, 1 where a child could not start or had to be killed. Call it
    from the main thread of a process without other threads.
    """
    with _Driver(Supervisor(specs, stop_grace_s=stop_grace_s), specs, on_ready) as driver:
        finish = driver.run()
    if finish.code:
        log.error("stopped: %s", finish.reason)
    return finish.code


class _Driver:
    """Turns processes and signals into events, and actions into processes and signals."""

    def __init__(self, machine: Supervisor, specs: Sequence[ChildSpec], on_ready: OnReady) -> None:
        self._machine, self._on_ready = machine, on_ready
        self._specs = {spec.name: spec for spec in specs}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._told: dict[int, tuple[str, bytes]] = {}  # ready pipe -> child, bytes so far
        self._events: deque[Event] = deque([Tick()])
        self._finish: Finish | None = None
        self._stopping = False
        self._selector = selectors.DefaultSelector()
        self._lifeline, self._watched = os.pipe()  # children read the first, we hold the second

    def __enter__(self) -> _Driver:
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self._running.values():  # only after an error of our own
            _kill_group(process.pid)
        for fd in (*self._told, self._lifeline, self._watched):
            os.close(fd)
        self._selector.close()

    def run(self) -> Finish:
        """Loop until the machine is finished."""
        with _signals() as wake:
            self._selector.register(wake, selectors.EVENT_READ)
            while True:
                while self._events:
                    for action in self._machine.step(self._events.popleft(), time.monotonic()):
                        self._do(action)
                if self._finish is not None:
                    return self._finish
                self._wait(wake)

    def _wait(self, wake: socket.socket) -> None:
        due = self._machine.next_tick()
        timeout = None if due is None else max(0.0, due - time.monotonic())
        for key, _ in self._selector.select(timeout):
            if key.fileobj is wake:
                self._on_signals(wake.recv(_LINE_BYTES))
            else:
                self._on_told(key.fd)
        self._reap()
        self._events.append(Tick())

    def _do(self, action: Action) -> None:
        match action:
            case Spawn(name):
                self._spawn(self._specs[name])
            case Terminate(name):
                if name in self._running:  # else its end is the next event
                    self._running[name].terminate()
            case Kill(name):
                if name in self._running:
                    _kill_group(self._running[name].pid)
            case Announce(details):
                self._on_ready(details)
            case Say(text):
                log.warning(text)
            case Finish():
                self._finish = action

    def _spawn(self, spec: ChildSpec) -> None:
        told, tell = os.pipe()
        fds = {READY_FD: str(tell), PARENT_FD: str(self._lifeline), PARENT_PID: str(os.getpid())}
        try:
            self._running[spec.name] = subprocess.Popen(
                spec.argv,
                env={**os.environ, **spec.env, **fds},
                pass_fds=(tell, self._lifeline),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as exc:
            os.close(told)
            self._events.append(Refused(spec.name, str(exc)))
            self._events.append(Exited(spec.name, _NOT_RUNNABLE))
            return
        finally:
            os.close(tell)
        os.set_blocking(told, False)
        self._told[told] = (spec.name, b"")
        self._selector.register(told, selectors.EVENT_READ)

    def _on_signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number in _STOP_SIGNALS:
                again = self._stopping and number == signal.SIGINT
                self._stopping = True
                self._events.append(StopAsked(at_once=again))

    def _on_told(self, fd: int, *, ended: bool = False) -> None:
        name, text = self._told[fd]
        with suppress(BlockingIOError):
            chunk = os.read(fd, _LINE_BYTES)
            text, ended = text + chunk, ended or not chunk
        if not ended and b"\n" not in text and len(text) < _LINE_BYTES:
            self._told[fd] = (name, text)
            return
        del self._told[fd]
        self._selector.unregister(fd)
        os.close(fd)
        word, _, rest = text.decode(errors="replace").partition("\n")[0].partition(" ")
        if word == "ready":
            self._events.append(Ready(name, rest))
        elif word == "refused":
            self._events.append(Refused(name, rest))

    def _reap(self) -> None:
        for name, process in list(self._running.items()):
            code = process.poll()
            if code is None:
                continue
            for fd in [fd for fd, (who, _) in self._told.items() if who == name]:
                self._on_told(fd, ended=True)  # its last words come before its end
            _kill_group(process.pid)  # what it had started must not outlive it
            del self._running[name]
            self._events.append(Exited(name, code))


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


@contextmanager
def _signals() -> Iterator[socket.socket]:
    """A socket that yields the numbers of the signals received, handlers put back at the end."""
    wake, write = socket.socketpair()
    wake.setblocking(False)
    write.setblocking(False)
    handled = {*_STOP_SIGNALS, signal.SIGCHLD}
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup
        handled.discard(signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: None) for number in handled}
    before_fd = signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
    try:
        yield wake
    finally:
        signal.set_wakeup_fd(before_fd)
        for number, handler in before.items():
            signal.signal(number, handler)
        wake.close()
        write.close()
