"""Calls on tickets."""

from __future__ import annotations

import secrets

from server.agent import answers
from server.agent.node import Node
from server.agent.tickets import TICKET_S
from server.ipc import Answer, Request


async def issue(node: Node, request: Request) -> Answer:
    """POST /api/context/tickets."""
    ticket = secrets.token_urlsafe(24)
    node.tickets.issue(ticket, node.loop.time())
    body = {"ticket": ticket, "expires_in_s": TICKET_S}
    return answers.json(body, 201, Cache_Control="no-store")


async def redeem(node: Node, request: Request) -> Answer:
    """Take a ticket that came with a request."""
    good = node.tickets.redeem(request.params["ticket"], node.loop.time())
    return answers.json({"good": good})


CALLS = {"ticket_issue": issue, "ticket_redeem": redeem}
