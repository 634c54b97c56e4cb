"""Every writer whose word must outlive a power loss, each with what a reader finds.

A row's `write` does what the product does, and yields where it has promised what it did by then; run again, it goes on
from whatever it finds. `read` returns what a reader gets; it raises where the product could not go on.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from rlhf_online import keys
from rlhf_online.attribution import trained_on
from rlhf_online.attribution.lineage import Lineages
from rlhf_online.attribution.trained_on import TrainedOn
from rlhf_online.errors import InvalidInput
from rlhf_online.eventlog import committed, gap
from rlhf_online.eventlog import folder as log_files
from rlhf_online.eventlog.base import DeadLetter, Record
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.retention import Retention, remove_expired
from rlhf_online.eventlog.segments import encode_group, segment_name
from rlhf_online.eventlog.spool import Spool
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.events import Completion
from rlhf_online.feedback import outcomes
from rlhf_online.feedback.answer_store import AnswerStore
from rlhf_online.feedback.outcomes import OutcomeBoard, fact, vote_key
from rlhf_online.keystore.keyring import Keyring
from rlhf_online.keystore.places import FolderKeys
from rlhf_online.keystore.vault import SEALED_WITH, Vault
from rlhf_online.rewards import audiences, weights
from rlhf_online.rewards.critic import probed
from rlhf_online.rewards.critic.planted import probe
from rlhf_online.rewards.critic.settings import CriticSettings
from rlhf_online.rewards.rules import record
from rlhf_online.rewards.rules.ruleset import parse
from rlhf_online.state import FINGERPRINT, PersonHash, StateDir
from rlhf_online.training import parity
from rlhf_online.training.checkpoint import CheckpointPart, Checkpoints
from rlhf_online.training.lease import FileLease
from rlhf_online.training.ledger import Ledger
from rlhf_online.versions import open_registry
from rlhf_online.versions.genesis import genesis
from rlhf_online.versions.manifest import Manifest, ProbeSequence
from tests.support.logged import completion
from tests.support.scripted_critic import knowing


def nothing(root: Path) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """`writes` are the functions that write or remove, "module:Class.function" without "rlhf_online."."""

    name: str
    writes: tuple[str, ...]
    write: Callable[[Path], Iterator[None]]
    read: Callable[[Path], Any]
    before: Callable[[Path], None] = nothing
    removes: bool = False
    """It removes what is of no use any more: after a kill that may come back."""
    between: Callable[[Any], bool] = field(default=lambda found: False)
    """Whether what is found while a promise is still being made may be neither what was before nor what is then."""


# The state folder


def operator_token(root: Path) -> Iterator[None]:
    StateDir(root / "state").operator_token()
    yield


def read_token(root: Path) -> str:
    state = StateDir(root / "state")
    return state.operator_token() if (state.root / "operator.token").exists() else ""


KEY = keys.make("ann", ["chat"])[0]


def _closed_keys(root: Path) -> Path:
    """The file of keys; what lays out a disk keeps no modes, and each start closes the folder to others."""
    path = StateDir(root / "state").keys
    if path.exists():
        path.chmod(0o600)
    return path


def api_keys(root: Path) -> Iterator[None]:
    path = _closed_keys(root)
    if not path.exists():
        keys.add(path, KEY)
    yield
    keys.revoke(path, KEY.id)
    yield


def read_api_keys(root: Path) -> list[bool]:
    return [key.revoked is not None for key in keys.read(_closed_keys(root)) or ()]


def salt_fingerprint(root: Path) -> Iterator[None]:
    PersonHash(b"a salt of some time ago").sign(root / "state" / "log")
    yield


def read_salt_fingerprint(root: Path) -> str:
    path = root / "state" / "log" / FINGERPRINT
    return path.read_text() if path.exists() else ""


def content_keys(root: Path) -> Iterator[None]:
    """A person's key, made for a log; deleted; and another one."""
    keys = Keyring(Vault(FolderKeys(root / "keystore")))
    keys.vault.bind(root / "log")
    was = read_content_keys(root)
    if was in ("", "none"):
        keys.current("ann")
        yield
    if was != "again":
        keys.erase("ann")
        yield
    keys.current("ann")
    yield


def read_content_keys(root: Path) -> str:
    keys = Keyring(Vault(FolderKeys(root / "keystore")))
    if not (root / "log" / SEALED_WITH).exists():
        return ""
    assert (root / "log" / SEALED_WITH).read_text() == keys.vault.identity(make=False)
    entry = keys.vault.read("ann")
    if entry is None:
        return "none"
    return ("again" if entry.erased else "first") if entry.id else "erased"


def status(root: Path) -> Iterator[None]:
    StateDir(root / "state").write_status("trainer", {"cycle": 1})
    yield


def reward_weights(root: Path) -> Iterator[None]:
    store = open_registry(root / "versions").store
    weights.change(store, StateDir(root), {"helpful": 0.5}, ["helpful"])
    yield


def audience(root: Path) -> Iterator[None]:
    audiences.define(open_registry(root / "versions").store, "brief", {"helpful": 0.5}, {}, ["helpful"])
    yield


def reward_rules(root: Path) -> Iterator[None]:
    record.apply(open_registry(root / "versions").store, parse("[propositions]\n"))
    yield


CRITIC = CriticSettings(url="http://127.0.0.1:9/v1", model="m", principles=("Be right.",))


def critic_probe(root: Path) -> Iterator[None]:
    """One that is passed, and one that is not."""
    for passed in (True, False):
        found = probe(knowing if passed else lambda messages: "[]", CRITIC.principles)
        if not passed or read_critic_probe(root) != "failed":
            probed.keep(root / "state", CRITIC, found, 1e9)
        yield


def read_critic_probe(root: Path) -> str:
    try:
        probed.require(root / "state", CRITIC, 1e9)
    except InvalidInput as error:
        return "" if "was not probed" in str(error) else "failed"
    return "passed"


# The event log


def appended(root: Path) -> Iterator[None]:
    """Each append begins a segment of its own: one of a few bytes is full."""
    held = read_log(root)
    with LocalLog(root / "log", segment_bytes=30) as log:
        for payload in (b"first", b"second", b"third"):
            if payload not in held:
                log.append(payload).result(30)
            yield


def first_record(root: Path) -> None:
    with LocalLog(root / "log") as log:
        log.append(b"before").result(30)


def left_unsynced(root: Path) -> Iterator[None]:
    """A writer was killed after it wrote a record and before it synced it; the next one takes it in."""
    segment = root / "log" / segment_name(0)
    if b"unsynced" not in read_log(root):
        with segment.open("ab") as file:
            file.write(encode_group([b"unsynced"], 1))
    LocalLog(root / "log").close()
    yield


def torn_tail(root: Path) -> Iterator[None]:
    """A writer was killed in the middle of a record, which nobody was told of; the next one cuts it and goes on."""
    with (root / "log" / segment_name(0)).open("ab") as file:
        file.write(encode_group([b"torn" * 10], 1)[:30])
    held = read_log(root)
    with LocalLog(root / "log") as log:
        if b"after" not in held:
            log.append(b"after").result(30)
        yield


def read_log(root: Path) -> list[bytes]:
    """The records, read after a start of the machine: by its writer's recovery, and by a reader that was quicker."""
    if not (folder := root / "log").is_dir():
        return []
    (root / "boot").write_text("00000000-0000-4000-8000-000000000001")
    with mock.patch.object(committed, "_BOOT_ID", root / "boot"):
        early = payloads(folder)
        LocalLog(folder).close()
        found = payloads(folder)
    (root / "boot").unlink()
    assert found[: len(early)] == early, "what a reader was given is gone"
    return found


def miscounted(root: Path) -> None:
    """A power failure left the count of acknowledged records too low."""
    first_record(root)
    (root / "log" / "committed").write_bytes(b"")


def recovered(root: Path) -> Iterator[None]:
    LocalLog(root / "log").close()
    yield


def read_count(root: Path) -> int:
    """What tells of a disk that has forgotten records which it had."""
    file = committed.CommittedFile(root / "log")
    count = file.read().records
    file.close()
    return count


def payloads(folder: Path) -> list[bytes]:
    with LocalReader(folder) as reader:
        records, _ = reader.read({}, 100)
    assert not any(record.damage for record in records)
    return [record.payload for record in records]


def four_segments(root: Path) -> None:
    with LocalLog(root / "log", segment_bytes=30) as log:
        for payload in (b"a" * 10, b"b" * 10, b"c" * 10, b"d" * 10):
            log.append(payload).result(30)


def expired(root: Path) -> Iterator[None]:
    """Two segments are removed, in one step for whoever asked for it."""
    for _ in remove_expired(root / "log", Retention(max_bytes=1), 2):
        pass
    yield


def read_without_a_gap(root: Path) -> list[int]:
    firsts = log_files.segments(root / "log")
    assert firsts == list(range(firsts[0], 4)), "a gap"
    return firsts


def consumed(root: Path) -> Iterator[None]:
    with LocalReader(root / "log") as reader:
        reader.mark_consumed("trainer", {"local": 1})
    yield


def shipped(root: Path) -> Iterator[None]:
    """A forwarder, of which Kafka has confirmed one record."""
    spool = Spool(root / "log")
    spool.shipped = 1
    spool.save()
    spool.close()
    yield


def read_shipped(root: Path) -> int:
    spool = Spool(root / "log")
    spool.close()
    return spool.shipped


def refused(root: Path) -> Iterator[None]:
    spool = Spool(root / "log")
    for number, payload in enumerate((b"first", b"second")):
        spool.refuse(Record("local", number, payload), str(number), "too large")
        yield
    spool.close()


def dead_letters(root: Path) -> Iterator[None]:
    with LocalReader(root / "log") as reader:
        for name in ("first", "second"):
            letter = DeadLetter(partition="local", offset=0, event_id=name, reason="damaged", payload=b"x" * 40)
            reader.write_dead_letters([letter])
            yield


def read_lines(path: Path) -> set[str]:
    """The whole lines: half a line at the end is one that nobody was promised. One may be there twice."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return {json.loads(line)["event_id"] for line in lines}


def gap_accepted(root: Path) -> Iterator[None]:
    gap.accept(root, gap.Place("a log", {"local": 3}))
    yield


# The trainer


def lease(root: Path) -> Iterator[None]:
    with FileLease.take(root / "checkpoints"):
        yield


def read_epoch(root: Path) -> int:
    """How many trainers have begun, capped: each that begins counts."""
    path = root / "checkpoints" / "epoch.json"
    return min(1, json.loads(path.read_text())["epoch"]) if path.exists() else 0


def checkpoints(root: Path) -> Iterator[None]:
    """Two lives of a trainer, a commit each: the second carries a part on, and removes the checkpoint of the first."""
    folder = root / "checkpoints"
    for number in (1, 2):
        with FileLease.take(folder) as held:
            kept = Checkpoints(folder, 1, held)
            stored = kept.load()
            done = stored.state["done"] if stored else 0
            if number > done:
                ledger = Ledger.load(kept.ledger_folder, stored.sealed["ledger"] if stored else [])
                names = stored.sealed["answers"] if stored else ()
                answers = AnswerStore.load(kept.answers_folder, names, 0, done)
                ledger.take(f"event {number}", "trained")
                envelope = completion(f"answer {number}")
                assert isinstance(envelope.event, Completion)
                answers.add(envelope, envelope.event, number)
                part = CheckpointPart({"w": torch.full((2,), float(number))}, {"updates": number})
                sealed = {"ledger": ledger.seal(kept.ledger_folder), "answers": answers.seal()}
                parts = {"reward": part, "policy": part if number == 1 else None}
                kept.save({"done": number}, parts, sealed, gap.Place("a log", {"local": number}))
        yield


def read_checkpoint(root: Path) -> tuple[Any, ...]:
    """Read without what mends damaged files, and again after each file of it was damaged: both are promised."""
    kept = Checkpoints(root / "checkpoints", 1)
    mending = {path: path.read_bytes() for path in root.rglob(f"*{parity.SUFFIX}")}
    for path in mending:
        path.unlink()
    if (stored := kept.load()) is None:
        return ()
    for path, content in mending.items():
        path.write_bytes(content)
    parts = [stored.folder / name for name in stored.files if name != "state.json"]
    for path in [*parts, *(kept.folder / kind / name for kind, names in stored.sealed.items() for name in names)]:
        path.write_bytes(b"!" + path.read_bytes()[1:])
    again = kept.load()
    assert again is not None and again.number == stored.number
    done = stored.state["done"]
    ledger = Ledger.load(kept.ledger_folder, stored.sealed["ledger"])
    answers = AnswerStore.load(kept.answers_folder, stored.sealed["answers"], 0, done)
    return (
        done,
        [ledger.known(f"event {number}") for number in (1, 2)],
        [answers.get(f"answer {number}") is not None for number in range(1, done + 1)],
        stored.part("reward").tensors["w"].tolist(),
        stored.part("policy").tensors["w"].tolist(),
    )


# Versions


def published(root: Path) -> Iterator[None]:
    registry = open_registry(root / "versions")
    done = registry.versions("policy")
    if not done:
        name = registry.reserve("policy")
        yield
        staged = registry.stage(name)
        (staged / "trunk").mkdir()
        for path in (staged / "heads.safetensors", staged / "trunk" / "model.safetensors"):
            path.write_bytes(b"weights")
    else:
        name = done[0]
        yield
    registry.publish(Manifest(version=name, tuning="full"))  # again, as a trainer that was killed before
    yield
    registry.mark(name, "rejected", reason="too far")
    yield


def read_published(root: Path) -> tuple[bool, list[str]]:
    """Whether a number was given, and which versions there are, all of them whole and none whose number is free."""
    registry = open_registry(root / "versions")
    number = int(registry.store.read("next/policy") or 0)
    names = registry.versions("policy")
    for name in names:
        registry.verify(name)
    assert len(names) <= number
    return number > 0, names


def probe_of(model: Path) -> tuple[ProbeSequence, ...]:
    return (ProbeSequence(token_ids=(1, 2), logprobs=(-0.5,)),)


def three_versions(root: Path) -> None:
    model = root / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    registry = open_registry(root / "versions")
    genesis(registry, model, tuning="full", probe_of=probe_of)
    for _ in range(2):
        name = registry.reserve("policy")
        (registry.stage(name) / "model.safetensors").write_bytes(b"weights")
        registry.publish(Manifest(version=name, tuning="full"))
    registry.promote("policy-000001")


def first_version(root: Path) -> Iterator[None]:
    model = root / "model"
    model.mkdir(exist_ok=True)
    (model / "model.safetensors").write_bytes(b"weights")
    genesis(open_registry(root / "versions"), model, tuning="full", probe_of=probe_of)
    yield


def promoted(root: Path) -> Iterator[None]:
    open_registry(root / "versions").promote("policy-000002", reason="better")
    yield


def rolled_back(root: Path) -> Iterator[None]:
    open_registry(root / "versions").rollback("policy", reason="worse", failed="policy-000001")
    yield


def marked(root: Path) -> Iterator[None]:
    open_registry(root / "versions").mark("policy-000002", "rejected", reason="too far")
    yield


def reference(root: Path) -> Iterator[None]:
    open_registry(root / "versions").refresh_reference("policy-000001")
    yield


def told(root: Path) -> Iterator[None]:
    """What became of two votes; each chunk holds one."""
    board = OutcomeBoard(open_registry(root / "versions").store)
    with mock.patch.object(outcomes, "CHUNK_BYTES", 1):
        for number in (1, 2):
            board.publish({vote_key(f"vote {number}", "ann"): fact("trained", f"reward-00000{number}")})
            yield


def read_told(root: Path) -> list[list[str]]:
    board = OutcomeBoard(open_registry(root / "versions").store)
    return [[found.detail for found in board.find(f"vote {number}", "ann")] for number in (1, 2)]


def learned_from(root: Path) -> Iterator[None]:
    for number in (1, 2):
        said = TrainedOn(after=f"policy-00000{number - 1}", asked=("ann",))
        trained_on.write(open_registry(root / "versions").store, f"policy-00000{number}", said)
        yield


def read_learned_from(root: Path) -> list[str]:
    lineages = Lineages(open_registry(root / "versions"))
    records = (lineages.record(f"policy-00000{number}") for number in (1, 2))
    return [record.after if isinstance(record, TrainedOn) else record for record in records]


def retired(root: Path) -> None:
    three_versions(root)
    open_registry(root / "versions").promote("policy-000002")


def pruned(root: Path) -> Iterator[None]:
    open_registry(root / "versions", nullcontext).prune("policy", 0)
    yield


def read_versions(root: Path) -> tuple[Any, ...]:
    """What is live, what the KL counts from, and the state of each version; a version that has weights has all.

    States follow the pointer: one that does not yet means what it will be set to.
    """
    registry = open_registry(root / "versions")
    names = registry.versions("policy")
    whole = [registry.has_weights(name) and bool(registry.verify(name)) for name in names]
    live = registry.live("policy")
    states: list[str] = []
    for name in names:
        state = registry.status(name).state
        if state in ("candidate", "live", "retired"):
            state = "live" if name == live else state.replace("live", "retired")
        states.append(state)
    return live, registry.references() if names else [], states, whole


def live_is_whole(found: tuple[Any, ...]) -> bool:
    """While a promotion is under way: what is live has its weights and is not refused, whatever the states say."""
    live, _, states, whole = found
    if live is None:
        return True
    number = int(live.removeprefix("policy-"))
    return whole[number] and states[number] != "rejected"


LOG = (
    "eventlog.folder:identity",
    "eventlog.segment_writer:SegmentWriter.begin",
    "eventlog.segment_writer:_write_all",
    "eventlog.committed:CommittedFile.write",
    "eventlog.recovery:recover",
)
STORE = ("versions.folder_store:FolderStore.replace", "versions.folder_store:FolderStore.settle")

WRITERS = (
    Writer(
        name="the operator's token, and the salt of people's names",
        writes=("state:StateDir._secret", "durable:write_once", "durable:make_folder"),
        write=operator_token,
        read=read_token,
    ),
    Writer(
        name="keys that are made, and revoked",
        writes=("keys:add", "keys:revoke", "keys:_write"),
        write=api_keys,
        read=read_api_keys,
    ),
    Writer(
        name="the fingerprint of the salt that the log's people are named by",
        writes=("state:PersonHash.sign",),
        write=salt_fingerprint,
        read=read_salt_fingerprint,
    ),
    Writer(
        name="a person's content key, and which key store a log is sealed with",
        writes=(
            "keystore.places:FolderKeys.store",
            "keystore.places:FolderKeys.replace",
            "keystore.places:FolderKeys.settle",
            "keystore.vault:Vault._check",
        ),
        write=content_keys,
        read=read_content_keys,
        between=lambda found: found == "none",
    ),
    Writer(
        name="what a service says of itself",
        writes=("state:StateDir.write_status", "durable:write_json", "durable:write_bytes", "durable:fsync_folder"),
        write=status,
        read=lambda root: StateDir(root / "state").read_status("trainer"),
    ),
    Writer(
        name="the weights of the objectives",
        writes=STORE,
        before=three_versions,
        write=reward_weights,
        read=lambda root: weights.read(open_registry(root / "versions").store, StateDir(root)),
    ),
    Writer(
        name="the audiences",
        writes=STORE,
        before=three_versions,
        write=audience,
        read=lambda root: audiences.read(open_registry(root / "versions").store),
    ),
    Writer(
        name="the rules in force",
        writes=STORE,
        before=three_versions,
        write=reward_rules,
        read=lambda root: record.read(open_registry(root / "versions").store).text,
    ),
    Writer(
        name="what a critic's probe found",
        writes=("rewards.critic.probed:keep",),
        write=critic_probe,
        read=read_critic_probe,
    ),
    Writer(
        name="the event log, a segment a record",
        writes=(*LOG, "eventlog.segment_writer:datasync"),
        write=appended,
        read=read_log,
    ),
    Writer(
        name="the event log, a record that a killed writer left unsynced",
        writes=("eventlog.segment_writer:SegmentWriter.restore",),
        before=first_record,
        write=left_unsynced,
        read=read_log,
    ),
    Writer(
        name="the event log, a record that a killed writer left torn",
        writes=("eventlog.segment_writer:SegmentWriter.restore",),
        before=first_record,
        write=torn_tail,
        read=read_log,
    ),
    Writer(
        name="how many records the event log holds",
        writes=("eventlog.committed:CommittedFile.sync",),
        before=miscounted,
        write=recovered,
        read=read_count,
    ),
    Writer(
        name="the event log's retention",
        writes=("eventlog.retention:remove_expired",),
        before=four_segments,
        write=expired,
        read=read_without_a_gap,
        removes=True,
        between=lambda firsts: True,
    ),
    Writer(
        name="what a reader has consumed",
        writes=("eventlog.folder:mark_consumed",),
        before=first_record,
        write=consumed,
        read=lambda root: log_files.first_needed(root / "log"),
    ),
    Writer(
        name="what a forwarder has shipped",
        writes=("eventlog.spool:Spool.save",),
        before=first_record,
        write=shipped,
        read=read_shipped,
    ),
    Writer(
        name="what Kafka has refused",
        writes=("eventlog.dead_letters:append", "durable:append_lines"),
        before=first_record,
        write=refused,
        read=lambda root: read_lines(root / "log" / "refused.jsonl"),
    ),
    Writer(
        name="dead letters",
        writes=("eventlog.dead_letters:append",),
        before=first_record,
        write=dead_letters,
        read=lambda root: read_lines(root / "log" / "dead-letters.jsonl"),
    ),
    Writer(
        name="a gap that was accepted",
        writes=("eventlog.gap:accept",),
        write=gap_accepted,
        read=lambda root: gap.accepted(root, "a log", {"local": 3}),
    ),
    Writer(
        name="the lease's epoch",
        writes=(
            "training.lease.file:Fence.begin",
            "training.lease.file:FileLease.take",
            "training.lease.file:_exclusive",
        ),
        write=lease,
        read=read_epoch,
    ),
    Writer(
        name="checkpoints with ledger and answers",
        writes=(
            "training.checkpoint:Checkpoints.save",
            "training.checkpoint:Checkpoints._write",
            "training.checkpoint:Checkpoints._carry",
            "training.checkpoint:Checkpoints._commit",
            "training.checkpoint:Checkpoints._prune",
            "training.checkpoint:Checkpoints._prune_sealed",
            "training.checkpoint:_settle",
            "training.checkpoint_files:write_values",
            "training.ledger:Ledger.seal",
            "training.parity:protect",
            "feedback.answer_store:AnswerStore._write",
            "durable:fsync_file",
        ),
        write=checkpoints,
        read=read_checkpoint,
    ),
    Writer(
        name="a new version",
        writes=(
            "versions.folder_store:FolderStore.stage",
            "versions.folder_store:FolderStore.put",
            "durable:fsync_tree",
        ),
        write=published,
        read=read_published,
        between=lambda found: True,
    ),
    Writer(
        name="the first version",
        writes=("versions.genesis:genesis",),
        write=first_version,
        read=read_versions,
        between=live_is_whole,
    ),
    Writer(
        name="a promotion",
        writes=STORE,
        before=three_versions,
        write=promoted,
        read=read_versions,
        between=live_is_whole,
    ),
    Writer(
        name="a roll-back",
        writes=STORE,
        before=three_versions,
        write=rolled_back,
        read=read_versions,
        between=live_is_whole,
    ),
    Writer(name="a rejection", writes=STORE, before=three_versions, write=marked, read=read_versions),
    Writer(name="a new reference", writes=STORE, before=three_versions, write=reference, read=read_versions),
    Writer(name="what became of votes", writes=STORE, before=three_versions, write=told, read=read_told),
    Writer(
        name="what a version learned from",
        writes=STORE,
        before=three_versions,
        write=learned_from,
        read=read_learned_from,
    ),
    Writer(
        name="weights that are pruned",
        writes=("versions.folder_store:FolderStore.discard_files",),
        before=retired,
        write=pruned,
        removes=True,
        read=read_versions,
    ),
)

ANEW = "made anew by whoever starts"
COPIED = "copies of what a bucket keeps: whoever loads one compares hashes, and has what is damaged fetched anew"
STAGED = "writes files that `fsync_tree` makes durable before anybody is told of them"
NOT_PROMISED = {
    "rlhf_online.backup": "a copy is made durable, and what was brought back, before it is renamed into place",
    "rlhf_online.doctor": "tries a disk and a store, and removes what it wrote",
    "rlhf_online.cli.judge:_new_file": "what a command was asked for; a model's answers stand in the cache",
    "rlhf_online.cli.retrain:retrain": "makes the folder; what is written into it syncs itself",
    "rlhf_online.config.files:write_toml": ANEW,
    "rlhf_online.engine.child:EngineProcess.start": ANEW,
    "rlhf_online.engine.child:EngineProcess.stop": ANEW,
    "rlhf_online.engine.child:socket_path": ANEW,
    "rlhf_online.engine.no_adapter:write_no_adapter": ANEW,
    "rlhf_online.eventlog.committed:CommittedFile.__init__": "a missing count is a count of 0",
    "rlhf_online.eventlog.segment_writer:SegmentWriter.abandon": "cuts what nobody was told of",
    "rlhf_online.eventlog.read_model": "the log keeps a record until SQLite has synced it, and what is lacking is read",
    "rlhf_online.locks:_locked": ANEW,
    "rlhf_online.locks:try_acquire": ANEW,
    "rlhf_online.models.reward:RewardModel.save": STAGED,
    "rlhf_online.models.smollm:convert": "a package's model, made durable before it is renamed into place",
    "rlhf_online.models.trunk:save_adapter": STAGED,
    "rlhf_online.models.trunk:save_model": STAGED,
    "rlhf_online.process:lower_priority": "no file",
    "rlhf_online.training.checkpoint:Checkpoints._fetched": COPIED,
    "rlhf_online.training.checkpoint:Checkpoints._let_go_of_others": COPIED,
    "rlhf_online.versions.bucket:Bucket.download": COPIED,
    "rlhf_online.versions.genesis:publish_adapter": STAGED,
    "rlhf_online.versions.copying": "stages what is then sent to a bucket",
    "rlhf_online.versions.folder_store:FolderStore.remove": "removes what was never put",
    "rlhf_online.versions.local_copies": COPIED,
    "rlhf_online.versions.object_store:ObjectStore": COPIED,
    "rlhf_online.process:write_ready_file": ANEW,
    "rlhf_online.sqlite": "an empty database is as good as none; of read models see above",
    "rlhf_online.rewards.asking:keep": "a line that is lost is asked again, and the queue takes an item once",
    "rlhf_online.simulation": "for demonstrations and tests",
    "rlhf_online.state:StateDir.close_to_others": "done anew at every start",
    "rlhf_online.training.traces:VoteTraces.took": "links spans, and no files",
    "rlhf_online.training.parity:mend": "the file is as bad as before until it is whole",
    "rlhf_online.training.sft.__main__:run": "syncs the fine-tuned model before it says where it is",
    "rlhf_online.training.offline.__main__:run": "syncs the models and its report before it says where they are",
    "rlhf_online.data.exporting": "an export is made durable before it is renamed into place",
    "services.chat.annotation.database:QueueDatabase.__init__": "SQLite syncs each transaction by itself",
    "services.chat.service:listen_locally": ANEW,
    "services.engine.__main__:_make_way": ANEW,
    "services.standalone": ANEW,
}
"""Functions, or packages, that write too, and why no power loss matters to them."""
