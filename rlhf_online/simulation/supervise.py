"""Supervised fine-tuning on noisy demonstrations of the tiny world, as a process of its own.

    python -m rlhf_online.simulation.supervise --model FOLDER --out FOLDER --seed 7

Progress goes to stdout, one JSON object a line: `{"step": 40, "steps": 1600, "loss": 1.53}`.
"""

import argparse
import json
import sys
from pathlib import Path

from rlhf_online import process
from rlhf_online.errors import RlhfError
from rlhf_online.events import Message
from rlhf_online.simulation import world

DEMONSTRATIONS = 20_000
STEPS, BATCH, LR = 1600, 128, 1.5e-3


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fine-tune the tiny model on demonstrations.")
    parser.add_argument("--model", type=Path, required=True, help="folder written by write_tiny_model")
    parser.add_argument("--out", type=Path, required=True, help="where the fine-tuned model goes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--demonstrations", type=int, default=DEMONSTRATIONS)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; the engine loads meanwhile")
    return parser.parse_args(arguments)


def main() -> int:
    options = parse()
    process.die_with_parent()
    try:
        supervise(options)
    except RlhfError as error:
        return process.complain(error)
    return 0


def supervise(options: argparse.Namespace) -> None:
    """Write the fine-tuned model to `options.out`."""
    # Imported here, so that `--help` needs no torch.
    import torch

    from rlhf_online.training.sft import fine_tune

    torch.set_num_threads(options.threads)
    shown = world.demonstrations(options.demonstrations, options.seed)
    fine_tune(
        options.model,
        [([Message(role="user", content=item.prompt)], item.answer) for item in shown],
        options.out,
        steps=options.steps,
        batch=BATCH,
        lr=LR,
        seed=options.seed,
        progress=_tell,
    )


def _tell(step: int, steps: int, loss: float) -> None:
    if step % 10 == 0 or step == steps:
        print(json.dumps({"step": step, "steps": steps, "loss": round(loss, 4)}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
