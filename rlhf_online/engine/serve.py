"""The engine's process: vLLM's own OpenAI server, unchanged, that ends when the process that started it ends.

`python -m rlhf_online.engine.serve …` takes vLLM's arguments. vLLM starts its engine core and its workers with
multiprocessing's "spawn", which imports this module in each of them as `__mp_main__`: that is where they learn to die
with their parent, so that killing any one of them, even by SIGKILL, leaves none of those below it. They die by SIGKILL:
vLLM catches SIGTERM while it starts, and would go on starting for nobody.
"""

import os
import signal

from rlhf_online.process import LOWER_PRIORITY, die_with_parent, lower_priority


def main() -> None:
    """Run the server until SIGTERM."""
    die_with_parent(by=signal.SIGKILL)
    if os.environ.get(LOWER_PRIORITY):
        lower_priority()
    from vllm.entrypoints.launchers.api_server.entry import main as serve

    serve()


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":
    die_with_parent(by=signal.SIGKILL)
