"""`--backtest MODEL`: start one, show how far it is, print its report and save its plot."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from rich.text import Text

from context.client import Client
from server.cli.progress import answering
from server.cli.screen import Screen

POLL_S = 0.2
DONE, FAILED, WRONG_ARGUMENTS = 0, 1, 2


def backtest(client: Client, screen: Screen, args: argparse.Namespace) -> int:
    """Run it on the node; FAILED where the node could not."""
    wish = {
        "model": args.backtest,
        "symbols": [args.symbol] if args.symbol else None,
        "horizon_s": args.horizon,
        "every_s": args.every,
        "costs": args.costs,
        "limit": args.limit,
    }
    started = client.backtest({name: value for name, value in wish.items() if value is not None})
    with answering(screen.err) as show:
        while (report := client.backtest_report(started["id"]))["state"] == "running":
            show(report["done"], report["total"])
            time.sleep(POLL_S)
    if report["state"] != "done":
        screen.complain(report["why"])
        return FAILED
    screen.show(report, Text(_told(report)))
    if args.plot:
        try:
            Path(args.plot).write_bytes(client.backtest_plot(report["id"]))
        except OSError as error:
            screen.complain(f"cannot write {args.plot}: {error.strerror}")
            return WRONG_ARGUMENTS
    return DONE


def _told(report: dict[str, Any]) -> str:
    profit, pool, delay = report["profit"], report["consensus"], report["delay_s"]
    verdict = "may be promoted by this report"
    if not report["promotable"]:
        verdict = f"is not promoted: {'; '.join(report['objections'])}"
    best = report["best_peer"]
    against = f"{_n(report['regret'])} against {best}, the best other" if best else "nobody beside"
    return "\n".join(
        [
            f"{report['model']} on {report['cases']:,} questions, {report['judged']:,} judged",
            f"answered              {_p(report['coverage'])}",
            f"Brier                 {_n(report['brier'])} (knowing nothing: "
            f"{_n(report['brier_uniform'])})",
            f"acted                 {_p(report['acted'])}, right in "
            f"{_p(report['accuracy_when_acting'])}",
            f"regret                {against}",
            f"consensus with it     {_n(pool['with'])}, without {_n(pool['without'])} (Brier)",
            f"profit after costs    {profit['net']:+.4%} over {profit['trades']:,} trades, "
            f"{profit['gross']:+.4%} before",
            f"outcomes known after  {_n(delay['median'])} s, at most {_n(delay['max'])} s",
            f"report                {report['id']}: {report['model']} {verdict}",
        ]
    )


def _n(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
