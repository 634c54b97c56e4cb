"""What sealing costs: `python -m tests.benches.content_keys [--rounds 5] [--json]`.

An exchange of so many tokens is encoded as it was, and sealed with a key in memory: on the event loop, before it
is queued for the disk. Then it is decoded, and opened. The best of the rounds counts, as others use the machine too.
`ok`: sealing an exchange of 512 tokens costs less than 100 µs.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rlhf_online import wire
from rlhf_online.events import Answer, Completion, Envelope, Message, Sampling, VersionSpan
from rlhf_online.keystore.keyring import Keyring
from rlhf_online.keystore.places import FolderKeys
from rlhf_online.keystore.vault import Vault

MOST_US = 100.0
TOKENS = (64, 512, 4096)
TIMES = 200


def exchange(tokens: int) -> Envelope:
    """Half of it asked, half answered."""
    half, text = tokens // 2, "words and words " * (tokens // 8)
    answer = Answer(
        index=0,
        text=text,
        token_ids=tuple(range(half)),
        logprobs=(-0.5,) * half,
        spans=(VersionSpan(policy_version="policy-000001", first_token=0),),
        finish_reason="stop",
    )
    event = Completion(
        completion_id="chatcmpl-1",
        conversation_id="talk",
        person="0123456789abcdef0123456789abcdef",
        messages=(Message(role="user", content=text),),
        prompt_token_ids=tuple(range(half)),
        answers=(answer,),
        sampling=Sampling(),
        started_ms=1,
        finished_ms=2,
    )
    return Envelope(event_id="chatcmpl-1", event=event)


def best_us(rounds: int, call: Callable[[], object]) -> float:
    """Microseconds a call, of the best round."""
    best = float("inf")
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(TIMES):
            call()
        best = min(best, time.perf_counter() - begin)
    return best / TIMES * 1e6


def measured(tokens: int, rounds: int, keys: Keyring) -> dict[str, float]:
    envelope = exchange(tokens)
    plain, sealed = wire.encode(envelope), wire.encode(envelope, keys)
    return {
        "tokens": tokens,
        "encode_us": best_us(rounds, lambda: wire.encode(envelope)),
        "seal_us": best_us(rounds, lambda: wire.encode(envelope, keys)),
        "decode_us": best_us(rounds, lambda: wire.decode(plain)),
        "open_us": best_us(rounds, lambda: wire.decode(sealed, keys)),
        "bytes": len(plain),
        "more_bytes": len(sealed) - len(plain),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        keys = Keyring(Vault(FolderKeys(Path(folder))))
        keys.vault.identity()
        rows = [measured(tokens, options.rounds, keys) for tokens in TOKENS]
    costs = {int(row["tokens"]): row["seal_us"] - row["encode_us"] for row in rows}
    ok = costs[512] < MOST_US
    if options.json:
        print(json.dumps({"ok": ok, "rows": rows}))
        return 0 if ok else 1
    print(f"{'tokens':>7}{'encode':>10}{'sealed':>10}{'decode':>10}{'opened':>10}{'bytes':>9}{'more':>6}   (µs)")
    for row in rows:
        times = "".join(f"{row[name]:>10.1f}" for name in ("encode_us", "seal_us", "decode_us", "open_us"))
        print(f"{int(row['tokens']):>7}{times}{int(row['bytes']):>9}{int(row['more_bytes']):>6}")
    print("ok" if ok else f"sealing 512 tokens costs {costs[512]:.0f} µs, more than {MOST_US:.0f}")
    return 0 if ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
