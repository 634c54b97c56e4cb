"""Writes docs/sizing.md from the calculator: `python scripts/sizing.py`."""

from pathlib import Path

from rlhf_online.sizing.document import document

if __name__ == "__main__":
    (Path(__file__).resolve().parents[1] / "docs" / "sizing.md").write_text(document())
