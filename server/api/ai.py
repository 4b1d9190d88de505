"""REST calls on models and decisions."""

from __future__ import annotations

from ai_bridge.requests import BacktestRequest, DecideRequest
from ai_bridge.specs import ModelSpec
from server.api.operations import BEFORE, LIMIT, Operation, Param

_SETTINGS_BODY = {
    "type": "object",
    "properties": {
        "weight": {"type": "number", "minimum": 0},
        "min_confidence": {"type": "number", "minimum": 0, "maximum": 1},
        "timeout_s": {"type": "number", "exclusiveMinimum": 0},
        "enabled": {"type": "boolean"},
        "concurrency": {"type": "integer", "minimum": 1, "maximum": 64},
        "report": {"type": "string", "description": "a back-test that promotes it from weight 0"},
    },
    "additionalProperties": False,
}
_OUTCOME_BODY = {
    "type": "object",
    "properties": {
        "outcome": {"type": "string", "description": "buy, sell, hold, or what was asked"},
        "return": {"type": "number", "description": "realised return as a fraction"},
    },
}
_REPLAY_BODY = {
    "type": "object",
    "properties": {"without": {"type": "array", "items": {"type": "string"}}},
}

OPERATIONS = (
    Operation(
        "POST",
        "/api/context/ai/decide",
        "Ask all models and decide by weighted consensus",
        call="decide",
        body=DecideRequest,
        answers={200: "the decision", 503: "no model could vote"},
    ),
    Operation("GET", "/api/context/ai/models", "All models", call="models"),
    Operation(
        "POST",
        "/api/context/ai/models",
        "Add a model; it is kept over restarts",
        call="model_register",
        body=ModelSpec,
        answers={201: "the model", 400: "a field is wrong", 409: "its name is taken"},
    ),
    Operation(
        "DELETE",
        "/api/context/ai/models/<name>",
        "Remove a model that was added; what was learned of it stays",
        call="model_remove",
        answers={200: "removed", 400: "built in, or in the settings file", 404: "unknown"},
    ),
    Operation(
        "PATCH",
        "/api/context/ai/models/<name>",
        "Change a model's weight, threshold, time-out, or switch it off",
        call="model_configure",
        body=_SETTINGS_BODY,
        answers={200: "the model", 404: "unknown"},
    ),
    Operation(
        "GET",
        "/api/context/ai/consensus",
        "How the consensus does: weights by symbol, regret and its bound, reliability, coverage",
        call="consensus",
        params=(Param("symbol", "only this one"),),
        answers={200: "the figures", 404: "nothing on this symbol was judged yet"},
    ),
    Operation(
        "GET",
        "/api/context/ai/decisions",
        "Decisions, newest first",
        call="decisions",
        params=(LIMIT, BEFORE, Param("model", "only this model's"), Param("symbol", "only on it")),
    ),
    Operation(
        "GET",
        "/api/context/ai/decisions/<decision_id>",
        "One decision: its record, its models' impact, its outcome, and all of it in sentences",
        call="decision",
        answers={200: "the decision", 404: "unknown"},
    ),
    Operation(
        "POST",
        "/api/context/ai/decisions/<decision_id>/outcome",
        "Tell what would have been right; weights learn from it once",
        call="outcome",
        body=_OUTCOME_BODY,
    ),
    Operation(
        "POST",
        "/api/context/ai/decisions/<decision_id>/replay",
        "Recompute a decision from its record, maybe without some models",
        call="decision_replay",
        body=_REPLAY_BODY,
    ),
    Operation(
        "POST",
        "/api/context/ai/backtests",
        "Have a model answer recorded questions as of then, judged by what came of them",
        call="backtest",
        body=BacktestRequest,
        answers={202: "it runs: ask for its id", 400: "a field is wrong"},
    ),
    Operation("GET", "/api/context/ai/backtests", "All back-tests", call="backtests"),
    Operation(
        "GET",
        "/api/context/ai/backtests/<backtest_id>",
        "The report of a back-test, or how far it is",
        call="backtest_one",
        answers={200: "the report", 404: "unknown"},
    ),
    Operation(
        "GET",
        "/api/context/ai/backtests/<backtest_id>/plot",
        "Skill and net profit over time",
        call="backtest_plot",
        media="image/svg+xml",
        answers={200: "an SVG", 404: "unknown"},
    ),
    Operation(
        "GET",
        "/api/context/ai/chain",
        "The newest entry of the chain over decisions and outcomes; keep its hash elsewhere",
        call="chain",
    ),
)
