"""The generated code is what `make proto` makes of the protos."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.py*") if path.suffix != ".pyc"}


def test_generated_code_is_current(tmp_path):
    ended = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "proto.py"), str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    made, kept = contents(tmp_path), contents(ROOT / "rlhf_online" / "proto")
    assert sorted(made) == sorted(kept)
    stale = [name for name, text in made.items() if kept[name] != text]
    assert not stale, f"{stale} differ from the protos: run make proto"
    assert {"rlhf/v1/events_pb2.py", "rlhf/v1/chat_pb2_grpc.py"} <= made.keys()
