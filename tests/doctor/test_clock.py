"""How far two clocks may differ before it is said, and before it is in the way."""

import pytest

from rlhf_online.doctor.clock import clock


@pytest.mark.parametrize(
    ("ahead_s", "severity", "what"),
    [
        (0.4, "ok", "that of Kafka differs by 0 s"),
        (-29, "ok", "that of Kafka differs by 29 s"),
        (31, "warn", "this machine's is 31 seconds ahead of that of Kafka"),
        (-3600, "refuse", "this machine's is 60 minutes behind that of Kafka"),
        (3 * 86_400, "refuse", "this machine's is 3 days ahead of that of Kafka"),
    ],
)
def test_a_difference_is_told_in_words(ahead_s: float, severity: str, what: str) -> None:
    found = clock("Kafka", 1_800_000_000.0, 1_800_000_000.0 + ahead_s)
    assert (found.severity, found.what) == (severity, what)
    assert ("NTP" in found.todo) == (severity != "ok")
