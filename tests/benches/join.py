"""What open answers cost: `python -m tests.benches.join [--answers 10000000] [--json]`.

Answers of about 0.7 KiB come one by one, as from the log, and none expires; in between the trainer's commits are made
(`seal`). Then votes on random ones of them are joined, and all is loaded again as after a restart. Memory is the peak
resident size of this process, less what it had before the first answer.
"""

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from rlhf_online.events import AnswerRef, Completion, Envelope, Thumb
from rlhf_online.feedback.answer_store import AnswerStore
from rlhf_online.feedback.join import Join
from tests.support.logged import completion, feedback

COMMIT_EVERY = 50_000
VOTES = 20_000
PROMPT, ANSWER = tuple(range(100, 160)), tuple(range(1_000, 1_060))


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def named(name: str, ms: int) -> Envelope:
    return completion(name, prompt=PROMPT, answers=[ANSWER], at_ms=ms)


def measure(folder: Path, count: int) -> dict[str, float | int]:
    join = Join(AnswerStore(folder, capacity=max(count, 1)), window_ms=1 << 60)
    for number in range(1_000):  # whatever is imported and allocated once
        join.add(named(f"warm-{number}", number))
    join.answers.seal()
    before = peak_mib()
    begin = time.perf_counter()
    for number in range(count):
        join.add(named(f"chatcmpl-{number:032x}", number))
        if join.answers.full or number % COMMIT_EVERY == 0:
            names = join.answers.seal()
            if sys.stderr.isatty():
                print(f"\r{number:,} answers, {peak_mib() - before:.0f} MiB", end="", file=sys.stderr)
    adding = time.perf_counter() - begin
    names = join.answers.seal()
    memory = peak_mib() - before
    rng = random.Random(1)
    begin = time.perf_counter()
    for number in range(VOTES):
        name = f"chatcmpl-{rng.randrange(count):032x}"
        [joined] = join.add(feedback(Thumb(answer=AnswerRef(completion_id=name), up=True), event_id=f"vote-{number}"))
        [(found, _)] = joined.answers.values()
        assert isinstance(found, Completion) and found.completion_id == name
    voting = time.perf_counter() - begin
    begin = time.perf_counter()
    again = AnswerStore.load(folder, names, join.answers.first, join.answers.total, capacity=max(count, 1))
    loading = time.perf_counter() - begin
    assert len(again) == len(join.answers)
    files = [folder / name for name in names]
    return {
        "answers": count,
        "memory_mib": round(memory),
        "bytes_an_answer_in_memory": round(memory * 2**20 / count, 1),
        "disk_mib": round(sum(path.stat().st_size for path in files) / 2**20),
        "files": len(files),
        "answers_per_s": round(count / adding),
        "votes_joined_per_s": round(VOTES / voting),
        "load_s": round(loading, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="where to write; default: a new folder in the current one")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder or Path.cwd(), prefix=".bench-join-") as folder:
        result = measure(Path(folder), options.answers)
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:<28}{value:>14,}")


if __name__ == "__main__":
    main()
