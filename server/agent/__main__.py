"""Entry of the agent process: `python -m server.agent`."""

# ruff: noqa: E402 - the imports take a second, and the parent may be killed meanwhile
from __future__ import annotations

from nodes.adapters.parent import die_with_parent

die_with_parent()

from server.agent.main import main

if __name__ == "__main__":
    main()
