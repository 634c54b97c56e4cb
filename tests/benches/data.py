"""Is every pair imported, and how fast: `python -m tests.benches.data [--pairs 115600] [--rounds 3] [--json]`.

The file is of HH-RLHF's shape, written here, with every oddity of the real files in its real share; its counts must be
those of `tests.support.hh_rlhf`, and a second import must add nothing. Pairs a second are those of one core: both the
processor's seconds of the whole process, the log's writer included, and the clock's, of the best round, to the log on
disk. 115,600 pairs are 50 times the real file of 2,312.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from rlhf_online.data.exchanges import Place
from rlhf_online.data.formats import FORMATS
from rlhf_online.data.importing import Importer, ImportReport, imported_ids
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.tail import LocalReader
from tests.benches.support.figures import show
from tests.support import hh_rlhf

FORMAT = "hh-rlhf"
NEEDED = 20_000
"""Pairs a second."""


def imported(file: Path, log_folder: Path, known: set[str]) -> tuple[ImportReport, float, float]:
    """What became of the file's rows; the processor's seconds, and the clock's."""
    with LocalLog(log_folder) as log:
        processor, clock = time.process_time(), time.perf_counter()
        report = Importer(log, known).add(file, FORMATS[FORMAT], Place(FORMAT, file.name, lambda name: name))
        return report, time.process_time() - processor, time.perf_counter() - clock


def measure(folder: Path, pairs: int, rounds: int) -> dict[str, Any]:
    file = hh_rlhf.write(folder / "pairs.jsonl", hh_rlhf.rows(pairs))
    found = [imported(file, folder / f"log-{number}", set()) for number in range(rounds)]
    reports = [report for report, *_ in found]
    begin = time.perf_counter()
    with LocalReader(folder / "log-0") as reader:
        known = imported_ids(reader)
    scanned = time.perf_counter() - begin
    again, *_ = imported(file, folder / "log-0", known)
    expected = hh_rlhf.expected_notes(pairs)
    counted = all(
        (each.rows, each.imported, each.votes) == (pairs,) * 3 and not each.refused and each.notes == expected
        for each in reports
    )
    once = again.already == pairs and not again.imported and len(known) == 2 * pairs
    rate = pairs / min(processor for _, processor, _ in found)
    return {
        "pairs": pairs,
        **{name: reports[0].notes[name] for name in sorted(expected)},
        "counts_equal": counted,
        "second_import_adds_nothing": once,
        "file_bytes_a_pair": file.stat().st_size // pairs,
        "pairs_per_processor_second": round(rate),
        "pairs_per_second": round(pairs / min(clock for *_, clock in found)),
        "ids_read_per_second": round(2 * pairs / scanned),
        "ok": counted and once and rate >= NEEDED,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=50 * hh_rlhf.REAL_PAIRS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-data-") as folder:
        values = measure(Path(folder), options.pairs, options.rounds)
    show(values, as_json=options.json)


if __name__ == "__main__":
    main()
