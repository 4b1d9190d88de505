"""What a follower does when the leader changes the state: types, models and weights stay alike.

The leader itself has made the change before it wrote it, so it leaves these out.
"""

from __future__ import annotations

import logging

import msgspec

from server.agent import learned, model_calls, outcomes
from server.agent.node import Node
from shared_storage.changes import Change, Delete, Put

log = logging.getLogger(__name__)


def refresh(node: Node, change: Change) -> None:
    """Take in a change of the state, on the event loop."""
    if node.leadership.leading:
        return
    try:
        match change:
            case Put("type", name, _, value):
                node.types.register(name, msgspec.json.decode(value))
            case Put(model_calls.SPEC | model_calls.SETTINGS | model_calls.PROMOTION, name):
                model_calls.recall_model(node, name)
            case Delete(model_calls.SPEC, name):
                model_calls.forget_model(node, name)
            case Put(learned.OUTCOME, decision_id, _, value):
                outcomes.recall_outcome(node, decision_id, value)
    except Exception:  # the state is right; what is in memory is set right by the next start
        log.exception(
            "a change of the state was not taken in", extra={"change": repr(change)[:200]}
        )
