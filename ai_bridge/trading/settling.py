"""From a broker's report to entries: what is new in it since the last one."""

from __future__ import annotations

from decimal import Decimal

from ai_bridge.trading.book import Working
from ai_bridge.trading.entries import Done, Ended, Entry, Fill
from ai_bridge.trading.money import PRICE_STEP
from ai_bridge.trading.ports import Report

# An order is sent within 5 s of its intention (gate.SEND_WITHIN_S), its request ends 5 s later,
# and exchanges refuse requests that are older than their window (5 s at Binance): one that the
# broker does not know after this time cannot arrive any more.
LOST_AFTER_S = 30.0
DUST = Decimal("0.01")  # of an order, below the steps in which an exchange counts


def entries_of(working: Working, report: Report, *, now: float, term: int) -> list[Entry]:
    """The fill and the end that a report adds; none where it tells nothing new."""
    order, found = working.order, list[Entry]()
    qty = report.qty - working.qty
    if qty > 0:
        value = report.value - working.value
        found.append(
            Fill(
                at=now if report.at is None else report.at,
                term=term,
                account=order.account,
                client_id=order.client_id,
                decision_id=order.decision_id,
                symbol=order.symbol,
                side=order.side,
                qty=qty,
                value=value,
                fee=report.fee - working.fee,
                fee_qty=report.fee_qty - working.fee_qty,
                price=max(PRICE_STEP, (value / qty).quantize(PRICE_STEP)),
                price_offset=report.price_offset,
            )
        )
    ended = _ended(working, report, now)
    if ended:
        found.append(
            Done(
                at=now,
                term=term,
                account=order.account,
                client_id=order.client_id,
                decision_id=order.decision_id,
                symbol=order.symbol,
                status=ended,
                detail=report.detail,
            )
        )
    return found


def _ended(working: Working, report: Report, now: float) -> Ended | None:
    order = working.order
    match report.status:
        case "working":
            return None
        case "unknown":
            return "not_received" if now > order.at + LOST_AFTER_S else None
        case "rejected" | "withheld" as status:
            return status
    if order.qty - report.qty <= order.qty * DUST:
        return "filled"
    return "expired" if now > order.expires_at else "cancelled"
