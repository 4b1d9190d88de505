"""The torch worker: a process of its own that learns from the market and answers on a Unix socket.

Operations: `observe {series}`, `predict {series: [...]}`, `status {}`, and for users' networks
`network {network}` and `predict_by {network, decisions, series: [...]}`. It teaches between
requests, one bar at a time, so that an answer never waits for a backlog of training.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ai_bridge.adapters.classroom import Classroom
from ai_bridge.adapters.frames import BadFrame, frame, read_frame, unpack_series
from ai_bridge.adapters.learner import Learner
from ai_bridge.adapters.user_networks import UserNetworks
from ai_bridge.errors import Abstained, InvalidRequest
from ai_bridge.prediction import Prediction
from ai_bridge.series import Series

WEIGHTS_FILE = "torch_model.safetensors"
NICENESS = 10
_log = logging.getLogger(__name__)
Message = dict[str, Any]


def run_worker(
    socket_path: str,
    state_dir: str,
    *,
    bar_s: float = 1.0,
    min_examples: int = 30,
    save_every_s: float = 10.0,
    device: str = "cpu",
    threads: int = 1,
) -> None:
    """Serve until SIGTERM or SIGINT, then store the weights and return.

    Parameters
    ----------
    socket_path : where to listen; a socket left there by a killed worker is replaced
    state_dir : folder of the weights, created where missing; users' networks are in `models`
        beside it
    bar_s : seconds a bar
    min_examples : below this many learned examples it abstains
    save_every_s : longest time for which learning may be lost to a `kill -9`
    device : of users' networks: `cpu`, `cuda`, or `auto` for a GPU where there is one. The
        learning model is too small to gain from one and stays on the CPU
    threads : CPU threads of one calculation
    """
    os.nice(NICENESS)
    torch.set_num_threads(threads)
    folder = Path(state_dir)
    folder.mkdir(parents=True, exist_ok=True)
    chosen = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    if device == "cuda" and chosen == "cpu":
        _log.warning("there is no GPU: networks run on the CPU")
    learner = Learner(folder / WEIGHTS_FILE, "cpu")
    _log.info("torch worker on %s, weights: %s", chosen, learner.origin)
    classroom = Classroom(learner, bar_s=bar_s, min_examples=min_examples)
    networks = UserNetworks(folder.parent / "models", chosen)
    asyncio.run(Worker(classroom, networks, save_every_s).serve(Path(socket_path)))


class Worker:
    """The socket, the training loop and the regular saving around a Classroom."""

    def __init__(self, classroom: Classroom, networks: UserNetworks, save_every_s: float) -> None:
        self._classroom, self._networks = classroom, networks
        self._save_every_s = save_every_s
        self._observed = asyncio.Event()
        self._stop = asyncio.Event()
        self._open: set[asyncio.Task[None]] = set()
        self._operations: dict[str, Callable[[Message], Message]] = {
            "observe": self._observe,
            "predict": self._predict,
            "predict_by": self._predict_by,
            "network": self._network,
            "status": lambda _: classroom.status(),
        }

    async def serve(self, path: Path) -> None:
        """Listen until told to stop; learned weights are stored on the way out."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stop.set)
        path.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(self._connected, path)
        finally:
            os.umask(mask)
        background = [asyncio.create_task(self._teach()), asyncio.create_task(self._save())]
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait([stopping, *background], return_when=asyncio.FIRST_COMPLETED)
        server.close()
        for task in (stopping, *background, *self._open):
            task.cancel()
        ended = await asyncio.gather(*background, return_exceptions=True)
        self._classroom.learner.save()
        path.unlink(missing_ok=True)
        for fault in ended:
            if isinstance(fault, Exception):
                raise fault

    async def _teach(self) -> None:
        while True:
            while self._classroom.teach():
                await asyncio.sleep(0)  # a waiting request goes first
            self._observed.clear()
            await self._observed.wait()

    async def _save(self) -> None:
        learner = self._classroom.learner
        while True:
            await asyncio.sleep(self._save_every_s)
            if learner.saved_version == learner.progress.version:
                continue
            try:
                learner.save()
            except OSError as full:
                _log.warning("weights not stored: %s", full)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            while True:
                writer.write(frame(self._answer(await read_frame(reader))))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        except BadFrame as garbage:
            _log.warning("closing a connection: %s", garbage)
        finally:
            self._open.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _answer(self, request: Message) -> Message:
        head = {"id": request.get("id")}
        operation = self._operations.get(str(request.get("op")))
        if operation is None:
            return {**head, "ok": False, "error": f"unknown op {request.get('op')!r}"}
        try:
            return {**head, "ok": True, **operation(request)}
        except (BadFrame, KeyError, TypeError) as wrong:
            return {**head, "ok": False, "error": f"bad {request['op']}: {wrong!r}"}

    def _observe(self, request: Message) -> Message:
        self._classroom.observe(unpack_series(request["series"]))
        self._observed.set()
        return {}

    def _predict(self, request: Message) -> Message:
        return self._told(request, self._classroom.predict)

    def _predict_by(self, request: Message) -> Message:
        network, decisions = str(request["network"]), list(request["decisions"])
        return self._told(request, lambda w: self._networks.predict(network, w, decisions))

    def _network(self, request: Message) -> Message:
        try:
            return {"about": self._networks.about(str(request["network"]))}
        except InvalidRequest as wrong:
            return {"unusable": wrong.detail}

    def _told(self, request: Message, predict: Callable[[list[Series]], Prediction]) -> Message:
        windows = [unpack_series(part) for part in request["series"]]
        try:
            prediction = predict(windows)
        except Abstained as why:
            return {"abstained": why.detail}
        except (InvalidRequest, ValueError, RuntimeError) as wrong:
            return {"unusable": str(wrong)}
        return {
            "distribution": prediction.distribution,
            "reasoning": prediction.reasoning,
            "digest": prediction.digest,
        }
