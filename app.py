"""Command line of the context media server: `--node` runs one, most other verbs ask one."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from ai_bridge.errors import BridgeError
from ai_bridge.specs import of_table
from ai_bridge.trading.modes import all_modes
from context.errors import ContextError
from context.feeds import parse_spec
from server.child import start_logs
from server.cli.parser import build_parser, misplaced
from server.config import Settings, SettingsError, load, unknown_variables
from server.semantic.packages import ModelMissing, model_folder

FLAGS = {
    "id": "node_id",
    "data": "data_dir",
    "feed": "feeds",
    "health_interval": "health_interval_s",
    "horizon": "outcome_horizon_s",
    "nats": "nats_url",
}
NODE_FLAGS = (
    *("id", "host", "port", "data", "feed", "peers", "async_mode", "health_interval"),
    *("nats", "witness", "replace", "web_workers", "live_trading", "coverage", "horizon"),
)


def main() -> int:
    """Run what the arguments ask for; returns the exit status."""
    parser = build_parser()
    args = parser.parse_args()
    offline = args.reindex or (args.verify_decisions and args.data is not None)
    if not (args.node or offline):
        return _run("server.cli.asking", args)
    wrong = misplaced(args)
    if wrong:
        parser.error(wrong)
    try:
        settings = load(
            {FLAGS.get(name, name): getattr(args, name) for name in NODE_FLAGS},
            os.environ,
            args.config,
        )
        for spec in settings.feeds:
            parse_spec(spec)
        if settings.semantic:
            model_folder()
        for name, table in settings.models.items():
            of_table(name, table)
        all_modes(settings.trading_modes)
    except (SettingsError, ContextError, BridgeError, ModelMissing) as exc:
        print(f"app.py: {exc}", file=sys.stderr)
        return 2
    if args.verify_decisions:
        return _run("server.cli.verify", settings, args)
    return _run("server.cli.reindex", settings, args) if args.reindex else run_node(settings)


def run_node(settings: Settings) -> int:
    """Supervise the processes of one node until it is stopped."""
    start_logs(settings, "supervisor")
    for line in unknown_variables(os.environ):
        print(f"app.py: {line}", file=sys.stderr)
    return _run("server.node", settings)


def _run(module: str, *args: object) -> int:
    """Do what a module is for; what the others need is not even loaded."""
    status: int = import_module(module).run(*args)
    return status


if __name__ == "__main__":
    sys.exit(main())
