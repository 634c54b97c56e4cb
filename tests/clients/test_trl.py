"""What `data export` writes, read by TRL itself: its checks, its chat templates, its trainers' own preparation of data.

`make clients` installs TRL into build/trl; without it these are skipped.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.simulation.tiny_model import write_tiny_model

ROOT = Path(__file__).resolve().parents[2]
TRL = ROOT / "build" / "trl"
pytestmark = pytest.mark.skipif(not (TRL / "trl").is_dir(), reason="make clients installs TRL")

TALK = [
    {"role": "user", "content": "name one fruit"},
    {"role": "assistant", "content": "fig"},
    {"role": "user", "content": "name two metal"},
]
PAIRS = [
    {"prompt": "is fig a fruit ?", "chosen": "yes", "rejected": "no", "person": "ann", "reasons": ["kind", "short"]},
    {"prompt": TALK, "chosen": "zinc iron", "rejected": "fig", "created_at": "2024-05-01", "versions": ["m-1", "m-2"]},
]
THUMBS = [
    {"prompt": TALK, "completion": "zinc iron", "label": True},
    {"prompt": "is fig a tool ?", "completion": "yes", "label": False},
]

TEMPLATE = "{% for m in messages %}{{ m['content'] + ' ' }}{% endfor %}"
"""The tiny world's own shows a conversation's last question alone."""

READ = """
import json, sys
from datasets import load_dataset
from transformers import AutoTokenizer
from trl.data_utils import apply_chat_template, is_conversational, unpair_preference_dataset

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
tokenizer.chat_template = {template!r}
for path in sys.argv[2:]:
    kind = "parquet" if path.endswith(".parquet") else "json"
    rows = load_dataset(kind, data_files=path, split="train", cache_dir=sys.argv[1] + "/cache")
    assert all(map(is_conversational, rows)), path
    told = [apply_chat_template(row, tokenizer) for row in rows]
    sides = ["prompt", "chosen", "rejected"]
    paired = "chosen" in rows.column_names
    unpaired = len(unpair_preference_dataset(rows.select_columns(sides))) if paired else 0
    print(json.dumps({"rows": list(rows), "told": told, "unpaired": unpaired}, default=str))
"""

TRAIN = """
import sys
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

model, path = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(model)
tokenizer.chat_template = {template!r}
cpu = {"use_cpu": True, "bf16": False}
settings = DPOConfig(output_dir=model + "/dpo", max_steps=1, per_device_train_batch_size=2, report_to=[], **cpu)
rows = load_dataset("json", data_files=path, split="train", cache_dir=model + "/cache")
lm = AutoModelForCausalLM.from_pretrained(model)
DPOTrainer(model=lm, args=settings, train_dataset=rows, processing_class=tokenizer).train()
"""


def run(*command: str) -> str:
    """A program that finds this product, and TRL beside the environment's own packages."""
    found = {"PYTHONPATH": f"{ROOT}{os.pathsep}{TRL}", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    ended = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=os.environ | found, capture_output=True, text=True, timeout=500
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def data(*arguments: object) -> str:
    return run("-m", "rlhf_online.cli", "data", *map(str, arguments))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files by "format.ending"."""
    folder = tmp_path_factory.mktemp("exported")
    for name, rows in (("trl-preference", PAIRS), ("trl-unpaired", THUMBS)):
        (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        data("import", "--format", name, folder / "in.jsonl", "--state", folder / "state")
    names = [f"{name}{end}" for name in ("trl-preference", "trl-unpaired") for end in (".jsonl", ".parquet")]
    files = {name: folder / name for name in names}
    for name, path in files.items():
        data("export", "--format", name.partition(".")[0], path, "--state", folder / "state")
    write_tiny_model(folder / "model", weights_seed=0)
    return files | {"model": folder / "model"}


def test_trl_reads_every_export_and_renders_it_as_we_do(exported: dict[str, Path]):
    names = ("trl-preference.jsonl", "trl-preference.parquet", "trl-unpaired.jsonl", "trl-unpaired.parquet")
    lines = run(
        "-c",
        READ.replace("{template!r}", repr(TEMPLATE)),
        str(exported["model"]),
        *(str(exported[name]) for name in names),
    ).splitlines()
    told: list[dict[str, Any]] = [json.loads(line) for line in lines]
    preference, as_parquet, unpaired, _ = told
    assert preference["told"] == as_parquet["told"] and preference["unpaired"] == 4
    assert preference["rows"][1]["prompt"] == TALK and preference["rows"][1]["versions"] == ["m-1", "m-2"]
    assert preference["rows"][0]["reasons"] == ["kind", "short"] and len(preference["rows"][0]["person_hash"]) == 32
    assert [row["label"] for row in unpaired["told"]] == [True, False]
    assert preference["told"][1]["prompt"] == "name one fruit fig name two metal "
    assert preference["told"][1]["chosen"] == "zinc iron "


def test_trl_learns_a_step_from_an_export(exported: dict[str, Path]):
    run(
        "-c",
        TRAIN.replace("{template!r}", repr(TEMPLATE)),
        str(exported["model"]),
        str(exported["trl-preference.jsonl"]),
    )


def test_parquet_is_imported_again_and_adds_nothing(exported: dict[str, Path]):
    path = exported["trl-preference.parquet"]
    [told] = json.loads(data("import", "--format", "trl-preference", path, "--state", path.parent / "state", "--json"))
    assert (told["rows"], told["already"], told["refused"]) == (2, 2, {})
