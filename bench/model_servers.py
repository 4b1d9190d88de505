"""Five model servers in a process of their own, as `bench.decide` asks them.

    python -m bench.model_servers SLOW_SECONDS

Prints their ports as JSON on one line, then serves until its input ends: three good ones that take
20, 40 and 80 ms, a slow one, and a dead one (a port that nobody listens on).
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack

from tests.model_server import ModelServer

GOOD_S = {"good20": 0.02, "good40": 0.04, "good80": 0.08}


def main() -> None:
    """Serve until the parent closes the pipe."""
    with ExitStack() as stack:
        ports: dict[str, int] = {}
        for name, seconds in {**GOOD_S, "slow": float(sys.argv[1])}.items():
            server = stack.enter_context(ModelServer())
            server.behave("slow", seconds)
            ports[name] = server.port
        dead = ModelServer()
        dead.close()
        ports["dead"] = dead.port
        print(json.dumps(ports), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
