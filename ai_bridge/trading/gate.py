"""The one gate that every order passes twice: before it is made durable, and before it is sent.

intention -> gate -> log (durable, fenced by term) -> gate -> broker
"""

from __future__ import annotations

from dataclasses import dataclass

from ai_bridge.trading.book import Book
from ai_bridge.trading.entries import Order
from ai_bridge.trading.limits import Prices, refusal

SEND_WITHIN_S = 5.0  # of the intention: later an order is withheld, see settling.LOST_AFTER_S


@dataclass(frozen=True, slots=True)
class Standing:
    """How the node stands at this moment.

    `control` is the version of the emergency stop's state; it grows with each stop and resume.
    """

    leading: bool
    term: int
    stopped: bool
    control: int


def stands(book: Book, standing: Standing, term: int) -> str | None:
    """Why nothing may be sent now under this term, or None."""
    if standing.stopped:
        return "the emergency stop is on"
    if book.session is None:
        return "no session trades"
    if standing.control != book.session.control:
        return "an emergency stop has ended this session"
    if not standing.leading:
        return "this node does not lead"
    if standing.term != term:
        return f"the order is of term {term}, now is term {standing.term}"
    return None


def before_intention(
    order: Order, book: Book, standing: Standing, prices: Prices, now: float
) -> str | None:
    """Why an order must not even be intended, or None."""
    return stands(book, standing, order.term) or refusal(order, book, prices, now)


def before_sending(order: Order, book: Book, standing: Standing, now: float) -> str | None:
    """Why an order that is durable must not be sent after all, or None."""
    if order.client_id not in book.open:
        return "the order is not open"
    if now > min(order.expires_at, order.at + SEND_WITHIN_S):
        return "the order has become too old to be sent"
    return stands(book, standing, order.term)
