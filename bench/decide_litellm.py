"""The same models behind LiteLLM's router: run by the interpreter of an environment that has it.

    PYTHON -m bench.decide_litellm PORTS_JSON DECISIONS DEADLINE_S

Imports nothing of this project. Prints one JSON object: seconds of each call, and how many failed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from litellm import Router  # type: ignore[import-not-found]

ASKED = [{"role": "user", "content": "Decide about BTC/USDT: buy, sell or hold?"}]


async def main() -> None:
    """Ask one after the other, as a caller with this deadline would configure it."""
    ports, count, deadline = json.loads(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    router = Router(
        model_list=[
            {
                "model_name": "any",
                "litellm_params": {
                    "model": "openai/small",
                    "api_base": f"http://127.0.0.1:{port}/v1",
                    "api_key": "none",
                    "max_retries": 0,
                },
            }
            for port in ports.values()
        ],
        timeout=deadline,
        num_retries=2,
        retry_after=0,
        allowed_fails=3,
        cooldown_time=5,
    )
    seconds, failed = [], 0
    for _ in range(count):
        started = time.perf_counter()
        try:
            await router.acompletion(model="any", messages=ASKED)
        except Exception:  # whatever it raises, the caller has no answer
            failed += 1
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds": seconds, "failed": failed}))


asyncio.run(main())
