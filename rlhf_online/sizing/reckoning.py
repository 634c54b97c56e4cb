"""The arithmetic: from people to what they need, each with its working."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from rlhf_online.sizing.demand import Demand, check
from rlhf_online.sizing.factors import FACTORS, GPUS, SETTINGS

DAY_S = 86_400
GB, TB, MIB = 1e9, 1e12, 1 << 20
NODE = 8
"""GPUs of a node."""


@dataclass(frozen=True, slots=True)
class Need:
    """`how` is the working, with the numbers in it."""

    name: str
    value: float
    unit: str
    how: str


def needs(demand: Demand) -> list[Need]:
    """Everything that is reckoned, in the order of the picture above. Raises ValueError for a value of no sense."""
    check(demand)
    traffic = _traffic(demand)
    engines = _engines(demand, traffic)
    return [*traffic.told(demand), *engines.told(), *_log(demand, traffic, engines), *_trainer(demand, traffic),
            *_store(demand, engines)]  # fmt: skip


def limits(demand: Demand) -> list[str]:
    """Where this release does not reach so far, in sentences."""
    found = {need.name: need for need in needs(demand)}
    said = []
    memory, held = found["trainer's memory"].value, GPUS[demand.gpu].memory * _v("gpu_memory")
    if memory > held and demand.tuning == "lora":
        said.append(
            f"beside adapters each GPU of the trainer holds the whole models, {memory:,.0f} GB, and {held:,.0f} GB of "
            "one are for them: another GPU, a smaller model, or all weights (trainer.sharding cuts those in pieces)"
        )
    votes, answers = found["votes at the peak"].value, found["answers at the peak"].value
    for what, come, factor in (
        ("votes", votes, "joined"), ("answers", answers, "taken"), ("events", votes + answers, "consumed")
    ):  # fmt: skip
        if come > (most := FACTORS[factor].value):
            said.append(f"one trainer takes {most:,.0f} {what} a second, and {come:,.0f} come")
    return said


@dataclass(frozen=True, slots=True)
class Traffic:
    """A day's, and a second's at the peak."""

    answers: float
    votes: float
    answers_s: float
    votes_s: float
    record: float
    log_bytes: float

    @property
    def events_s(self) -> float:
        return self.answers_s + self.votes_s

    def told(self, demand: Demand) -> Iterator[Need]:
        yield Need("answers", self.answers, "a day", f"{demand.people:,} people × {demand.messages:g}")
        yield Need("votes", self.votes, "a day", f"{self.answers:,.0f} answers × {demand.votes:g}")
        per = f"a day ÷ {DAY_S:,} s × {demand.peak:g}"
        yield Need("answers at the peak", self.answers_s, "a second", f"{self.answers:,.0f} {per}")
        yield Need("votes at the peak", self.votes_s, "a second", f"{self.votes:,.0f} {per}")
        yield Need(
            "an answer's record", self.record, "bytes",
            f"{_v('answer_record'):g} + {demand.prompt_tokens:g} × {_v('prompt_token'):g} + {demand.answer_tokens:g} × "
            f"{_v('answer_token'):g}",
        )  # fmt: skip
        yield Need("the log grows by", self.log_bytes / GB, "GB a day", "answers × record + votes × theirs")


def _traffic(demand: Demand) -> Traffic:
    answers = demand.people * demand.messages
    votes = answers * demand.votes
    record = _v("answer_record") + demand.prompt_tokens * _v("prompt_token") + demand.answer_tokens * _v("answer_token")
    busy = demand.peak / DAY_S
    return Traffic(answers, votes, answers * busy, votes * busy, record, answers * record + votes * _v("vote_record"))


@dataclass(frozen=True, slots=True)
class Engines:
    pods: int
    gpus: int
    tokens_s: float
    seconds: float
    how: str
    peak_s: float

    def told(self) -> Iterator[Need]:
        yield Need("one engine writes", self.tokens_s, "tokens a second", self.how)
        yield Need("an answer takes of it", self.seconds, "seconds", "its tokens ÷ that, and reading its prompt")
        load = self.peak_s * self.seconds
        yield Need("chat pods", self.pods, "one engine each", f"{load:.3g} busy engines at the peak, two for a fault")
        yield Need("engine GPUs", self.gpus, "in all", f"{self.pods} pods × {self.gpus // self.pods}")


def _engines(demand: Demand, traffic: Traffic) -> Engines:
    gpu, weights = GPUS[demand.gpu], demand.weights_billion * 1e9
    loaded, usable = 2 * weights, gpu.memory * GB * _v("gpu_memory")
    size = 1
    while loaded > usable * size * 2 / 3:  # a third at least for the cache
        size *= 2
    context = (demand.prompt_tokens + demand.answer_tokens / 2) * demand.cache_kib * 1024
    batch = max(1, min(SETTINGS["batch"].value, (usable * size - loaded) // context))
    step_s = (loaded + batch * context) / (gpu.bandwidth * TB * size * _v("engine_bandwidth"))
    tokens_s = demand.engine_tokens_s or batch / step_s
    how = "as measured" if demand.engine_tokens_s else (
        f"{batch:.0f} at once ÷ ({loaded / GB:.3g} + {batch * context / GB:.3g} GB ÷ {size * gpu.bandwidth:.3g} TB/s ÷ "
        f"{_v('engine_bandwidth'):g})"
    )  # fmt: skip
    reading_s = _v("flops_read") * weights * demand.prompt_tokens / (gpu.bfloat16 * 1e12 * size * _v("engine_compute"))
    seconds = demand.answer_tokens / tokens_s + reading_s
    sampled = demand.versions_a_day * SETTINGS["per_cycle"].value / DAY_S
    busy = (traffic.answers_s + sampled) * seconds
    pods = max(
        math.ceil(busy), math.ceil(traffic.answers_s / _v("streams")), math.ceil(traffic.events_s / _v("shipped"))
    )
    pods = max(pods, 2) if demand.people >= 1000 else pods
    return Engines(pods, pods * size, tokens_s, seconds, how, traffic.answers_s + sampled)


def _log(demand: Demand, traffic: Traffic, engines: Engines) -> Iterator[Need]:
    bytes_s = traffic.log_bytes / DAY_S * demand.peak
    if engines.pods == 1:
        yield Need("partitions", 0, "no Kafka needed", "one machine: the trainer reads the log on its disk")
        year = traffic.log_bytes * 365 / GB
        yield Need("log's disk", year, "GB a year", "nothing goes by default; log.retain_days bounds it")
    else:
        partitions = max(3, math.ceil(bytes_s / _v("partition")))
        how = f"{bytes_s / MIB:.3g} MiB/s at the peak ÷ {_v('partition') / 1e6:g} MB/s, a broker each at least"
        yield Need("partitions", partitions, "of each event topic", how)
        kept = traffic.log_bytes * demand.retention_days * demand.replication / GB
        how = f"{traffic.log_bytes / GB:.3g} GB a day × {demand.retention_days:g} days × {demand.replication}"
        yield Need("Kafka's disks", kept, "GB in all", how)
        spool = traffic.log_bytes / engines.pods * demand.outage_days / GB + 1
        yield Need("spool of a chat pod", spool, "GB", f"its share of {demand.outage_days:g} days, and 1 GB")
    conversations = SETTINGS["conversations"].value / GB
    yield Need("conversations of a chat pod", 2 * conversations, "GB", "kept, and once more while it is written anew")


def _trainer(demand: Demand, traffic: Traffic) -> Iterator[Need]:
    gpu, weights = GPUS[demand.gpu], demand.weights_billion * 1e9
    tokens = demand.prompt_tokens + demand.answer_tokens
    rollouts = demand.versions_a_day * SETTINGS["per_cycle"].value * tokens
    learned = SETTINGS["policy_passes"].value * _v("flops_trained") + SETTINGS["policy_reads"].value * _v("flops_read")
    votes = traffic.votes * tokens * SETTINGS["vote_passes"].value * (1 + SETTINGS["replay"].value)
    work = weights * (rollouts * learned + votes * _v("flops_trained"))
    able = gpu.bfloat16 * 1e12 * _v("trainer_efficiency") * _v("trainer_busy") * DAY_S
    # All weights: the policy's, its reference, gradients and two moments; of two reward models all but the reference.
    copies = 3 if demand.tuning == "lora" else 5 + 4 + 4
    memory = copies * 4 * weights * 1.2
    held = gpu.memory * GB * _v("gpu_memory")
    count = max(math.ceil(work / able), math.ceil(memory / held))
    yield Need(
        "training", work / 1e15, "PFLOP a day", f"{rollouts:.3g} tokens × {learned:g} + {votes:.3g} × 6, a weight"
    )
    yield Need("trainer's memory", memory / GB, "GB", f"{copies} × 4 bytes a weight, a fifth more for activations")
    pieces = ", in pieces: trainer.sharding = full" if demand.tuning == "full" and memory > held else ""
    yield Need("trainer GPUs", count, "in all", f"{work / able:.2g} by work, {memory / held:.2g} by memory{pieces}")
    yield Need("trainer nodes", math.ceil(count / NODE), f"of {NODE} GPUs", "one pod on one node while they are enough")
    yield Need(
        "reward service", 4 * weights / GB, "GB of memory", "one copy of a reward model, float32; two for a fault"
    )
    trained = weights * (_v("adapter") if demand.tuning == "lora" else 1)
    kept = 3 * SETTINGS["checkpoints"].value * trained * _v("checkpoint_weight")
    waiting = traffic.answers * SETTINGS["open_days"].value
    ledger = (traffic.votes + demand.versions_a_day * SETTINGS["per_cycle"].value) * 365 * _v("ledger_entry")
    disk = kept + waiting * _v("open_answer_disk") + ledger
    how = (
        f"{SETTINGS['checkpoints'].value:g} checkpoints of three models {kept / GB:.3g}, {waiting:,.0f} open answers "
        f"{waiting * _v('open_answer_disk') / GB:.3g}, a year's ledger {ledger / GB:.3g}"
    )
    yield Need("trainer's disk", disk / GB, "GB", how)
    yield Need("its open answers", waiting * _v("open_answer_memory") / MIB, "MiB of memory", f"{waiting:,.0f} of them")


def _store(demand: Demand, engines: Engines) -> Iterator[Need]:
    share = _v("adapter") if demand.tuning == "lora" else 1
    version = demand.weights_billion * 1e9 * share * _v("version_weight")
    kept = 2 * SETTINGS["versions"].value * version
    yield Need(
        "a version", version / GB, "GB", f"{demand.weights_billion:g} billion × {share:g} × {_v('version_weight'):g}"
    )
    yield Need("store", kept / GB, "GB", f"{SETTINGS['versions'].value:g} of policy and reward model each")
    swap = version * engines.pods / _v("swap_s") / MIB
    yield Need("store's bandwidth", swap, "MiB/s at a swap", f"{engines.pods} pods fetch it in {_v('swap_s'):g} s")
    day = version * engines.pods * demand.versions_a_day / GB
    yield Need("fetched from the store", day, "GB a day", f"{demand.versions_a_day:g} versions × {engines.pods} pods")


def _v(name: str) -> float:
    return FACTORS[name].value


def as_json(demand: Demand) -> dict[str, object]:
    """What was asked, what it takes, where this release stops, and what it was reckoned from."""
    factors = {name: asdict(factor) for name, factor in (FACTORS | SETTINGS).items()}
    found = [asdict(need) for need in needs(demand)]
    return {"asked": asdict(demand), "needs": found, "limits": limits(demand), "factors": factors}


def shown(value: float) -> str:
    """Three digits, and no exponent."""
    if value >= 100 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.1g}"
