"""The chat service whose metrics count nothing: `python -m tests.benches.support.uncounted --config FILE`.

Only to be measured beside one that counts; the product has no such switch.
"""

import sys

from prometheus_client import Counter, Gauge, Histogram, Summary

from services.chat.__main__ import main


def _nothing(*_: object, **__: object) -> None:
    pass


for kind in (Counter, Gauge, Histogram, Summary):
    for method in ("inc", "dec", "set", "observe"):
        if hasattr(kind, method):
            setattr(kind, method, _nothing)

if __name__ == "__main__":
    sys.exit(main())
