"""What is imported where: a command line that starts at once, and rooms that keep to the rules of pyproject.toml."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LOADED = """
import sys
sys.argv[1:] = {arguments}
try:
    import runpy
    runpy.run_module({module!r}, run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
print("loaded:", *sorted({{name.partition(".")[0] for name in sys.modules}}), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("rlhf_online.cli", {"torch", "transformers", "vllm", "peft", "grpc", "aiohttp", "numpy", "matplotlib"}),
        ("services.chat", {"torch", "transformers", "vllm", "peft"}),
        ("services.standalone", {"torch", "transformers", "vllm", "peft", "grpc"}),
    ],
)
def test_help_is_shown_without_loading_what_computes(module, heavy):
    ended = subprocess.run(
        [sys.executable, "-c", LOADED.format(arguments=["--help"], module=module)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert "usage" in ended.stdout.lower()
    loaded = set(ended.stderr.rpartition("loaded:")[2].split())
    assert "rlhf_online" in loaded
    assert loaded & heavy == set()


SETTINGS_READ = """
import sys
from pathlib import Path
import services.standalone.__main__
from rlhf_online.config import load
from services.standalone.settings import StandaloneSettings
print(load(StandaloneSettings, Path(sys.argv[1])).trainer.policy.algorithm.name, "torch" in sys.modules)
"""


def test_the_settings_of_training_are_read_without_torch(tmp_path):
    path = tmp_path / "up.toml"
    path.write_text('model = "m"\nstate_dir = "s"\n[trainer.policy]\nalgorithm = "grpo"\n')
    command = [sys.executable, "-c", SETTINGS_READ, str(path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.stderr) == ("grpo False\n", "")


def test_imports_keep_to_the_contracts():
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    ended = subprocess.run(
        [sys.executable, "-c", command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "0 broken" in ended.stdout
