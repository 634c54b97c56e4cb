"""This machine's clock, against the answer of a server that has one of its own.

Kafka refuses events that are stamped an hour ahead, S3 requests that are a quarter of an hour off, and certificates are
not valid yet or no more; windows and quotas count hours.
"""

from rlhf_online.doctor.finding import Finding, ok, refuse, warn

NOTICED_S, WRONG_S = 30.0, 300.0


def clock(whose: str, theirs_s: float, ours_s: float) -> Finding:
    """Both in seconds since 1970, as of the same moment."""
    ahead = ours_s - theirs_s
    if abs(ahead) < NOTICED_S:
        return ok("clock", f"that of {whose} differs by {abs(ahead):.0f} s")
    what = f"this machine's is {told(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} that of {whose}"
    todo = "let NTP set it (chrony, systemd-timesyncd), here or there: of two clocks nobody knows which one is right"
    return (refuse if abs(ahead) >= WRONG_S else warn)("clock", what, todo)


def told(seconds: float) -> str:
    """For people: '61 minutes'."""
    for size, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"
