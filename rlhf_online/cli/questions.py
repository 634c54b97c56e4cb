"""`rlhf-online ask`: what annotators are asked next, by what their votes would tell."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlhf_online.cli.client import DEFAULT_STATE, StateOption, UrlOption, connect
from rlhf_online.cli.gap import content_keys, log_settings
from rlhf_online.cli.retrain import trainer_settings
from rlhf_online.cli.versions import existing, registry_of
from rlhf_online.rewards import audiences, weights
from rlhf_online.rewards.weights import Weights
from rlhf_online.state import StateDir

if TYPE_CHECKING:
    from rlhf_online.rewards.sources import Pair, Scored

TIMEOUT_S = 60.0
DEFAULT_REWARD = "127.0.0.1:8002"


def ask(
    count: Annotated[int, typer.Argument(min=1, max=1000, help="Questions.", show_default=False)],
    explore: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share that is drawn from all pairs alike; 1 asks at random.")
    ] = 0.1,
    reward: Annotated[
        str, typer.Option(help="gRPC address of the reward service; by default the one that the trainer asks.")
    ] = "",
    url: UrlOption = "",
    state: StateOption = DEFAULT_STATE,
    config: Annotated[Path | None, typer.Option(help="A service's file, for where the log is.")] = None,
) -> None:
    """Add pairs of answers of the log to the annotators' queue: those on which the reward model's heads disagree most.

    Only answers that nobody has judged, of requests with several answers; one pair a request, none twice. The name of
    each item holds the probability with which it was drawn. Answers of an audience's adapter are scored by its weights.
    Run it from time to time: the model learns meanwhile.
    """
    from rlhf_online.eventlog import open_source
    from rlhf_online.rewards import asking
    from rlhf_online.rewards.client import RewardClient

    folder = existing(state)
    kept = folder.root / asking.ASKED
    source = open_source(log_settings(folder, config), folder.log)
    try:
        groups = asking.unvoted(source, asking.asked_in(kept), content_keys(folder, config))
    finally:
        source.close()
    print(f"{len(groups)} requests in the log with several answers that nobody has judged")
    asked = reward or trainer_settings(folder, None).get("reward_address", DEFAULT_REWARD)
    counted, client = _by_audience(folder), RewardClient(asked)

    def score(audience: str, pairs: "Sequence[Pair]") -> "list[Scored]":
        return client.score(pairs, "", TIMEOUT_S, counted.get(audience))

    try:
        chosen = asking.ask(groups, score, count, explore, random.Random())
    finally:
        client.close()
    if not chosen:
        return
    lines = "\n".join(json.dumps(asking.item(question)) for question in chosen)
    with connect(url, state, operator=True) as service:
        results = service.post_lines("/v1/annotation/items", lines.encode())["results"]
    added = [question for question, result in zip(chosen, results, strict=True) if "error" not in result]
    asking.keep(kept, added)
    for result in results:
        if "error" in result:
            print(result["error"]["message"])
    told = sum(question.information for question in added) / max(1, len(added))
    print(f"{len(added)} questions added, {told:.3f} nats expected of each vote (.693 at most)")


def _by_audience(folder: StateDir) -> dict[str, Weights]:
    """What each objective counts for each audience; rules are left out, as of them heads know nothing. Raises
    InvalidInput, OSError."""
    registry = registry_of(folder)
    if not (known := audiences.read(registry.store)):
        return {}
    objectives, common = weights.objectives(registry), weights.read(registry.store, folder)
    return {name: audiences.complete(named, common, objectives) for name, named in known.items()}
