"""Whether what a service tells keeps to the catalogue of its metrics."""

from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families

from rlhf_online.metrics.catalogue import Entry

ENDINGS = ("_bucket", "_count", "_sum", "")


def strays(scraped: str, entries: Iterable[Entry]) -> list[str]:
    """Series of a scrape in the classic format that the catalogue does not know, or whose label is outside its set."""
    known = {entry.name: {label.name: label.values for label in entry.labels} for entry in entries}
    found: list[str] = []
    for family in text_string_to_metric_families(scraped):
        for sample in family.samples:
            names = (sample.name.removesuffix(ending) for ending in ENDINGS)
            labels = next((known[name] for name in names if name in known), None)
            if labels is None or any(
                label != "le" and (label not in labels or (labels[label] and value not in labels[label]))
                for label, value in sample.labels.items()
            ):
                found.append(f"{sample.name} {sample.labels}")
    return found
