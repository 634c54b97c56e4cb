"""What a person sees who starts `rlhf-online up` on each folder of the zoo: `make zoo`, ARGS="Qwen2 GPT-2" for some.

The command is the real one, on ports of the system's choice and with a state folder of its own. A folder that the zoo
says is refused must be refused in one sentence and with an exit code; one that is taken must answer a chat request.
Prints a row for each folder and tuning, with the seconds until then and the processor's in all, which a busy machine
does not change. Ends with exit code 1 if one differs from what the zoo says, or if a refusal took the processor 10 s.
"""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from transformers.utils import logging

from rlhf_online.config import EngineSettings
from tests.zoo.models import ZOO, Animal, Tuning, copied

REFUSED_WITHIN_S = 10.0
START_S: float = EngineSettings.model_fields["start_timeout_s"].default + 120
STOP_S = 90.0
SMALL = ("chat.engine.max_model_len=128", "chat.limits.max_tokens=64", "chat.engine.kv_cache_gib=0.1")
"""The zoo's models take 128 tokens, fewer than `up` asks of an engine by itself."""
QUESTION = {"messages": [{"role": "user", "content": "is zinc a metal"}], "max_tokens": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """`answer`: to the question, None if there was none. `said`: everything; the model's folder is called MODEL."""

    answer: str | None
    said: str
    exit_code: int
    seconds: float
    """Until the answer, or until the command ended."""
    cpu_s: float

    def is_as_the_zoo_says(self, refusal: str) -> bool:
        """A refusal is one sentence with an exit code that is neither a signal's nor that of success."""
        if not refusal:
            return bool(self.answer) and self.exit_code == 0
        one_sentence = self.said.startswith("error: ") and self.said.count("\n") == 1
        return one_sentence and self.exit_code > 0 and re.search(refusal, self.said) is not None

    def __str__(self) -> str:
        if self.answer is not None:
            return f"answers {self.answer!r}, ends with {self.exit_code}"
        return f"{(self.said.splitlines() or ['not a word'])[-1]}, exit code {self.exit_code}"


def main() -> int:
    """Returns the exit code."""
    logging.disable_progress_bar()
    wanted, failed = sys.argv[1:], 0
    print("| model folder | tuning | what `up` does | s | CPU s |\n| --- | --- | --- | --- | --- |", flush=True)
    for animal in ZOO:
        for tuning in ("lora", "full"):
            if wanted and not any(word in f"{animal.name}, {tuning}" for word in wanted):
                continue
            seen = start(animal, tuning)
            refusal = getattr(animal, tuning)
            wrong = "WRONG: " * (not seen.is_as_the_zoo_says(refusal))
            wrong += "LATE: " * bool(refusal and seen.cpu_s > REFUSED_WITHIN_S)
            failed += bool(wrong)
            words = f"{wrong}{seen}".replace("|", r"\|")
            print(f"| {animal.name} | {tuning} | {words} | {seen.seconds:.1f} | {seen.cpu_s:.1f} |", flush=True)
    return int(failed > 0)


def start(animal: Animal, tuning: Tuning) -> Start:
    """Start it on the animal's folder, ask it something if it can be asked, and end it."""
    with tempfile.TemporaryDirectory() as root:
        folder, state, output = copied(animal, Path(root) / "model"), Path(root) / "state", Path(root) / "output"
        command = [sys.executable, "-m", "rlhf_online.cli", "up", "--model", str(folder), "--state", str(state)]
        command += ["--port", "0", "--grpc-port", "0", "--tuning", tuning, *(f"--set={value}" for value in SMALL)]
        began, used = time.monotonic(), _cpu_s()
        with output.open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            answer = _ask(process, state, began + START_S)
            seconds = time.monotonic() - began
        finally:
            code = _stop(process)
        said = output.read_text().replace(str(folder), "MODEL")
        return Start(answer=answer, said=said, exit_code=code, seconds=seconds, cpu_s=_cpu_s() - used)


def _ask(process: "subprocess.Popen[bytes]", state: Path, deadline: float) -> str | None:
    """As soon as a version serves; None if the process ends before."""
    ready = state / "run" / "standalone.ready.json"
    with httpx.Client(trust_env=False, timeout=60) as http:
        while process.poll() is None and time.monotonic() < deadline:
            with suppress(OSError, ValueError, httpx.TransportError):
                url = f"http://127.0.0.1:{json.loads(ready.read_text())['http']}"
                if http.get(f"{url}/readyz").is_success:
                    reply = http.post(f"{url}/v1/chat/completions", json=QUESTION)
                    return reply.json()["choices"][0]["message"]["content"] if reply.is_success else None
            time.sleep(0.05)
    return None


def _stop(process: "subprocess.Popen[bytes]") -> int:
    """By Ctrl-C, if it runs; returns the exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def _cpu_s() -> float:
    """Of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
