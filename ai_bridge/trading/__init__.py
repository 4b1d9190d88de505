"""Acting on decisions: modes, hard limits, and an account that is a fold over entries of the log.

Everything here only computes. `server/agent/trading_dealer.py` acts: it makes an order durable
before it sends it, and asks the gate (`gate.py`) before both.
"""
