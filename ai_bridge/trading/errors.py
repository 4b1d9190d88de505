"""What can go wrong with trading, and whose fault it is.

BridgeError
├── TradingRefused     409  the operator: what stands in the way is said, such as the emergency stop
├── BrokerUnavailable  503  the broker does not answer; nobody knows yet what became of the request
└── OrderRejected      502  the broker: this order will not be executed
"""

from __future__ import annotations

from ai_bridge.errors import BridgeError


class TradingRefused(BridgeError):
    """Trading cannot begin now; the sentence says why."""

    code = "trading_refused"
    status = 409


class BrokerUnavailable(BridgeError):
    """The broker does not answer."""

    code = "broker_unavailable"
    status = 503
    retryable = True


class OrderRejected(BridgeError):
    """The broker refused an order for good."""

    code = "order_rejected"
    status = 502
