"""Send a recording to a node at a multiple of its own pace, each item exactly once.

Every request carries a key made of this run and its first line, and is repeated until the node
acknowledges it, so that a crash and restart of the node neither loses nor doubles an item.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from context.client import Client, ClientError, RequestFailed
from server.cli.pacing import BadLine, Batch, plan
from server.cli.progress import watching
from server.cli.recording import DAMAGED, Recording


@dataclass(slots=True)
class Summary:
    """How a replay went; `late_s` is the longest that a batch was acknowledged after it was due.

    At speed 0 nothing is ever due, and `late_s` stays 0.
    """

    items: int = 0
    batches: int = 0
    retries: int = 0
    first_cursor: str | None = None
    last_cursor: str | None = None
    seconds: float = 0.0
    late_s: float = 0.0

    def add(self, answer: dict[str, Any], late_s: float) -> None:
        """Count one acknowledged batch."""
        epoch = answer["cursor"].partition(":")[0]
        self.items += answer["accepted"]
        self.batches += 1
        self.first_cursor = self.first_cursor or f"{epoch}:{answer['first_offset']}"
        self.last_cursor = answer["cursor"]
        self.late_s = max(self.late_s, round(late_s, 3))

    def as_json(self) -> dict[str, Any]:
        """The summary document."""
        return asdict(self)


class ReplayFailed(Exception):
    """A replay that ended early; the text tells why and up to which line the node has it."""


# Who wants to see the progress: it hears the summary so far and the lag in seconds.
Watch = Callable[[Summary, float], None]


class Sender:
    """Sends batches when they are due, one after the other."""

    def __init__(
        self, client: Client, run_id: str, *, give_up_after_s: float, paced: bool, watch: Watch
    ) -> None:
        self.summary = Summary()
        self.last_line = 0  # the last acknowledged one
        self._client = client
        self._run_id = run_id
        self._give_up_after_s = give_up_after_s
        self._paced = paced
        self._watch = watch

    def send_all(self, batches: Iterable[Batch]) -> None:
        """Send everything; raises ReplayFailed, and what reading the batches raises."""
        started = time.monotonic()

        def lag_s(batch: Batch) -> float:
            return time.monotonic() - started - batch.due_s if self._paced else 0.0

        try:
            for batch in batches:
                while (early_s := -lag_s(batch)) > 0:
                    self._watch(self.summary, 0.0)
                    time.sleep(min(early_s, 0.5))
                answer = self._send(batch, lag_s)
                self.summary.add(answer, lag_s(batch))
                self.last_line = batch.numbers[-1]
                self._watch(self.summary, lag_s(batch))
        finally:
            self.summary.seconds = round(time.monotonic() - started, 3)

    def _send(self, batch: Batch, lag_s: Callable[[Batch], float]) -> dict[str, Any]:
        def retry(error: ClientError, pause_s: float) -> None:
            self.summary.retries += 1
            self._watch(self.summary, lag_s(batch))

        try:
            return self._client.ingest(
                batch.body,
                idempotency_key=f"{self._run_id}-{batch.numbers[0]}",
                give_up_after_s=self._give_up_after_s,
                on_retry=retry,
            )
        except RequestFailed as error:
            raise ReplayFailed(_refusal(batch, error)) from error
        except ClientError as error:
            raise ReplayFailed(f"gave up after {self._give_up_after_s:g} s: {error}") from error


def _refusal(batch: Batch, error: RequestFailed) -> str:
    """What the node refused, by line of the recording instead of place in the batch."""
    refused = error.problem.get("errors") or []
    lines = [
        f"line {batch.numbers[each['index']]}: {each['field']} {each['message']}"
        for each in refused[:3]
        if 0 <= each.get("index", -1) < len(batch.numbers)
    ]
    return "; ".join(lines) or str(error)


def replay(
    client: Client,
    path: str,
    *,
    speed: float,
    give_up_after_s: float,
    run_id: str,
    console: Console,
) -> Summary:
    """Send the recording at `path`, showing a progress bar where `console` is a terminal.

    Raises OSError where the file cannot be opened, else ReplayFailed.
    """
    with Recording(path) as recording, watching(recording, console) as watch:
        sender = Sender(
            client, run_id, give_up_after_s=give_up_after_s, paced=speed > 0, watch=watch
        )
        try:
            sender.send_all(plan(recording, speed))
        except KeyboardInterrupt:
            raise ReplayFailed(f"interrupted; {_standing(sender.last_line)}") from None
        except (ReplayFailed, BadLine, *DAMAGED, OSError) as error:
            raise ReplayFailed(f"{error}; {_standing(sender.last_line)}") from error
    return sender.summary


def _standing(last_line: int) -> str:
    if not last_line:
        return "no line is acknowledged"
    return f"acknowledged up to line {last_line}"
