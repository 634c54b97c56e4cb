"""A console's database and versions as after 100,000 votes and 1,000 versions."""

import json
from dataclasses import asdict

from rlhf_online.events import now_ms
from rlhf_online.versions.manifest import Kind, Manifest, ProbeSequence, Status
from rlhf_online.versions.store import VersionStore
from services.chat.console.tally import MINUTE_MS, Tally

VOTES, POLICIES, WAITING = 100_000, 500, 5_000
KINDS: tuple[Kind, ...] = ("policy", "reward")
GATE = {"kl": 0.4, "samples": 128, "win_rate": 0.55, "score": 0.1, "live_score": 0.0, "length": 9.0, "live_length": 8.0}


def fill(tally: Tally) -> None:
    """All votes are trained and live but the last ones, which wait."""
    began = now_ms() - VOTES * 100
    votes = ((i, f"key {i}", began + i * 100, 0 if i >= VOTES - WAITING else 3, "") for i in range(VOTES))
    thumbs = ((f"s{i}", i, f"e{i}", "p", f"c{i}", 0, i % 2, f"policy-{i % POLICIES:06d}") for i in range(VOTES))
    changes = ((i, began + i, f"policy-{i % POLICIES:06d}", "live", "", "") for i in range(10_000))
    rows = {
        "vote": votes,
        "thumb": thumbs,
        "change": changes,
        "liked": ((f"policy-{i:06d}", 100, 100) for i in range(POLICIES)),
        "total": iter([("votes", VOTES), ("waiting", WAITING)]),
        "minute": ((now_ms() // MINUTE_MS - i, 600) for i in range(VOTES // 600)),
        "click": ((i, float(i)) for i in range(1_000)),
    }
    with tally.transaction():
        for table, found in rows.items():
            for row in found:
                tally.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)


def publish(store: VersionStore) -> None:
    """As many reward versions as policies, each with its verdict; the last ones are live."""
    probe = (ProbeSequence(token_ids=tuple(range(64)), logprobs=(-1.0,) * 63),) * 8
    for i in range(POLICIES):
        for kind in KINDS:
            name, last = f"{kind}-{i:06d}", i == POLICIES - 1
            made = Manifest(
                version=name,
                tuning="full",
                probe=probe if kind == "policy" else (),
                created_ms=i + 1,
                reward_version=f"reward-{i:06d}" if kind == "policy" else "",
                figures={"accuracy": 0.7, "accuracy_n": 50.0},
            )
            store.put(name, store.stage(name), lambda _, made=made: json.dumps(asdict(made)).encode())
            state = "live" if last else "retired"
            status = Status(state=state, gate=GATE, changed_ms=1_000 + i, first_live_ms=1_000 + i)
            store.replace(f"states/{name}.json", json.dumps(asdict(status)), expected=None)
            if last:
                store.replace(f"live/{kind}", name, expected=None)
