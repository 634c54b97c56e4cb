"""How much memory trainer and reward service need for a model: arithmetic over its headers and the settings.

    held       what is there all the time: weights that learn and such that do not, Adam's moments (the host's, if
               they are kept there)
    a phase    what comes on top for a while: the policy learns, the reward model learns, a checkpoint is written

The phase that needs most decides. On a GPU weights, moments, gradients and activations are the device's, copies (to
take an update back, for a checkpoint) the host's; on a CPU both are one. Sizes are bytes; nothing is loaded, no torch.
"""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from rlhf_online.config import Tuning
from rlhf_online.doctor.finding import Finding, ok, refuse, warn
from rlhf_online.errors import InvalidInput
from rlhf_online.models.limits import activation_bytes
from rlhf_online.models.tensor_headers import BadHeader, Tensor, read_header
from rlhf_online.training.settings import TrainerSettings
from rlhf_online.versions.weight_files import BadIndex, weight_files

Place = Literal["a GPU", "a GPU's host", "a CPU"]

GIB = 1 << 30
ITEM = {"float32": 4, "bfloat16": 2}
"""Bytes of a number."""
WIDE, MOMENTS, COPY = 4, 8, 12
"""Bytes a weight: float32, Adam's two moments, and a copy of all three."""
PROCESS = 740 << 20
"""Of a process that has imported torch, transformers and peft, on a CPU, their libraries' pages included."""
ACTIVATIONS, FREE_SHARE = 2 << 30, 2
"""Most that a pass with gradients takes: bytes on a CPU, and one of so many parts of what is free on a GPU
(`models.trunk`)."""
REWARD_TOKENS, ANSWERS = 16_384, 4
"""Most tokens of a pass of the reward model, and answers of a vote; prompt and answer count as `rollout.max_tokens`."""
MOMENTS_KEPT = "Adam's moments"
POLICY_LEARNS = "the policy learns: gradients, activations"
REWARD_LEARNS = "the reward model learns: gradients, activations"
NAMES = (
    ("hidden_size", "n_embd", "d_model"),
    ("num_hidden_layers", "n_layer", "num_layers"),
    ("intermediate_size", "n_inner", "ffn_dim"),
)
"""What kinds of models call width, number of layers and inner width in config.json."""
MEMINFO = Path("/proc/meminfo")
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Values by what becomes of them: `layers` are matrices that an adapter changes, `sides` the sum of both their
    lengths; `head` is an output layer that is not the embedding."""

    weights: int
    layers: int
    sides: int
    head: int
    narrow: bool
    """All are stored in bfloat16."""
    stored: int
    """Bytes of the files."""
    largest: int
    """Values of the largest tensor."""
    pinned: int
    """Values of the tensors, each rounded up to a power of two: so torch takes pinned memory."""
    depth: int
    width: int
    inner: int

    @classmethod
    def of(cls, folder: Path) -> "Shape":
        """Of the model in `folder`. Raises InvalidInput for one whose configuration or headers cannot be read."""
        try:
            config = json.loads((folder / "config.json").read_text())
            config = config | config.get("text_config", {})
            tensors = [item for path in weight_files(folder) for item in read_header(path).items()]
            width, depth, inner = (_said(config, names) for names in NAMES)
            vocabulary = int(config["vocab_size"])
        except (OSError, ValueError, KeyError, TypeError, BadHeader, BadIndex) as error:
            raise InvalidInput(f"the model in {folder} cannot be planned for: {error!r}; `doctor` says more") from error
        if not (width and depth):
            raise InvalidInput(f"config.json in {folder} says neither {' nor '.join(NAMES[0])}: no plan is made")
        if not tensors:
            raise InvalidInput(f"{folder} holds no *.safetensors: name a folder with weights")
        matrices = [t for name, t in tensors if len(t.shape) == 2 and t.shape[0] != vocabulary]
        return cls(
            weights=sum(_values(tensor) for _, tensor in tensors),
            layers=sum(map(_values, matrices)),
            sides=sum(sum(tensor.shape) for tensor in matrices),
            head=sum(_values(tensor) for name, tensor in tensors if name == "lm_head.weight"),
            narrow={tensor.dtype for _, tensor in tensors} == {"BF16"},
            stored=sum(tensor.end - tensor.start for _, tensor in tensors),
            largest=max(_values(tensor) for _, tensor in tensors),
            pinned=sum(_power_of_two(_values(tensor)) for _, tensor in tensors),
            depth=depth,
            width=width,
            inner=inner or 4 * width,
        )

    def frozen(self, dtype: str, *, head: bool) -> int:
        """Bytes of these weights where none learns (`models.frozen`), with the output layer or without."""
        saved = self.layers * (WIDE - 2) if self.narrow and dtype == "bfloat16" else 0
        return WIDE * (self.weights - (0 if head else self.head)) - saved

    def adapter(self, rank: int) -> int:
        """Values of an adapter."""
        return rank * self.sides


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The settings of the trainer that memory depends on most."""

    tuning: Tuning
    reward_tuning: Tuning
    dtype: str
    recompute: bool = False
    optimiser_state: Literal["device", "cpu"] = "device"

    def changes(self, other: "Choice") -> list[str]:
        """The settings in which `other` differs, as it has them."""
        now = self.said()
        return [f"{name} = {value}" for name, value in other.said().items() if value != now[name]]

    def told(self) -> str:
        """For people: the settings that a plan is known by, and the moments' place where it is not the usual one."""
        away = ", optimiser_state 'cpu'" if self.optimiser_state == "cpu" else ""
        return f"tuning '{self.tuning}', reward.tuning '{self.reward_tuning}'{away} and dtype '{self.dtype}'"

    def said(self) -> dict[str, str]:
        """As the trainer's settings say it."""
        values = {name.replace("reward_", "reward."): value for name, value in asdict(self).items()}
        return {name: str(value).lower() if isinstance(value, bool) else repr(value) for name, value in values.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Bytes of the trainer by part, of its device and of its host; on a CPU one process needs both.

    `activations` are those of passes as full as settings allow, which are less full where memory says so; `least` those
    of a single answer, or of the answers of a single vote."""

    choice: Choice
    held: Mapping[str, int]
    on_host_held: Mapping[str, int]
    rounding: int
    """What those take beside a GPU besides: there they are pinned."""
    device: Mapping[str, int]
    activations: Mapping[str, int]
    least: Mapping[str, int]
    host: Mapping[str, int]

    @property
    def on_device(self) -> int:
        """The smallest GPU: the rest leaves as much as a pass of the fewest tokens may take."""
        return max(size + FREE_SHARE * self.least.get(name, 0) for name, size in self._rest().items())

    @property
    def full_passes(self) -> int:
        """The smallest GPU on which passes are as full as settings allow."""
        return max(size + FREE_SHARE * self.activations.get(name, 0) for name, size in self._rest().items())

    def taken(self, card: int) -> int:
        """What it takes of a GPU of so many bytes."""
        return max(
            size + max(self.least.get(name, 0), min(self.activations.get(name, 0), (card - size) // FREE_SHARE))
            for name, size in self._rest().items()
        )

    def _rest(self) -> dict[str, int]:
        """Of the device by phase, without activations."""
        return {name: sum(self.held.values()) + size for name, size in self.device.items()}

    @property
    def on_cpu(self) -> int:
        """The device is the host: what a phase needs of both at once."""
        held = sum(self.held.values()) + sum(self.on_host_held.values())
        return PROCESS + held + max(self.added().values())

    def added(self) -> dict[str, int]:
        """What each phase needs on a CPU besides what is held."""
        return {
            name: self.device.get(name, 0) + min(ACTIVATIONS, self.activations.get(name, 0)) + self.host.get(name, 0)
            for name in dict.fromkeys([*self.device, *self.host])
        }

    @property
    def on_host(self) -> int:
        """Beside a GPU."""
        reading = "the models are read"
        added = max(*self.host.values(), self.device[reading] + self.host[reading])
        return PROCESS + sum(self.on_host_held.values()) + self.rounding + added

    def needed(self, place: Place) -> int:
        """Of the memory there."""
        return {"a GPU": self.on_device, "a GPU's host": self.on_host, "a CPU": self.on_cpu}[place]


def plan(shape: Shape, settings: TrainerSettings, choice: Choice) -> Plan:
    """What the trainer needs with these, and else as its settings say."""
    tuning, reward_tuning, dtype = choice.tuning, choice.reward_tuning, choice.dtype
    rank, own = settings.policy.lora_rank, settings.reward
    trunk = shape.weights - shape.head
    policy = shape.weights if tuning == "full" else shape.adapter(rank)
    reward = trunk if reward_tuning == "full" else shape.adapter(own.lora_rank)
    models = 2 if settings.gate.held_back.share else 1
    apart = bool(own.trunk) and reward_tuning == "lora"
    learning = policy + models * reward
    tuned = (tuning == "full") + models * (reward_tuning == "full")
    pinned = shape.pinned * tuned - _power_of_two(shape.head) * models * (reward_tuning == "full")
    whole = shape.weights * (tuning == "full") + trunk * models * (reward_tuning == "full")
    on_cpu = choice.optimiser_state == "cpu"
    held = {
        "what learns": WIDE * learning,
        MOMENTS_KEPT: 0 if on_cpu else MOMENTS * learning,
        "moments of a tensor at its step": MOMENTS * tuned * shape.largest if on_cpu else 0,
        "the policy's base or reference": shape.frozen(dtype, head=True),
        "the reward model's base, if it is another": shape.frozen(dtype, head=False) if apart else 0,
    }
    a_token = activation_bytes(shape.depth, shape.width, shape.inner, ITEM[dtype], recompute=choice.recompute)
    answer = 2 * settings.rollout.max_tokens
    cast = 2 * shape.layers if dtype == "bfloat16" else 0
    device = {
        POLICY_LEARNS: WIDE * policy + (cast if tuning == "full" else 0),
        REWARD_LEARNS: WIDE * reward + (cast if reward_tuning == "full" else 0),
    }
    activations = {
        POLICY_LEARNS: settings.policy.micro_batch_tokens * a_token,
        REWARD_LEARNS: min(REWARD_TOKENS, own.batch * ANSWERS * answer) * a_token,
    }
    fewest = {POLICY_LEARNS: answer * a_token, REWARD_LEARNS: ANSWERS * answer * a_token}
    # A model is read as float32 before what is frozen of it is narrowed and shared; the last one has no moments yet.
    passing = 0 if tuning == reward_tuning == "full" else WIDE * shape.weights
    last = reward if models > 1 else policy
    device["the models are read"] = max(0, passing - (0 if on_cpu else MOMENTS * last))
    host = {
        "the models are read": shape.stored,
        POLICY_LEARNS: COPY * policy,
        REWARD_LEARNS: COPY * reward,
        "a checkpoint of the reward models": COPY * models * reward + WIDE * policy,
        "a checkpoint of the policy": COPY * policy,
    }
    return Plan(
        choice=choice,
        held=held,
        on_host_held={f"{MOMENTS_KEPT}, on the host": MOMENTS * learning} if on_cpu else {},
        rounding=MOMENTS * (pinned - whole) if on_cpu else 0,
        device=device,
        activations=activations,
        least={name: min(size, fewest[name]) for name, size in activations.items()},
        host=host,
    )


def plans(shape: Shape, settings: TrainerSettings) -> Iterator[Plan]:
    """Every combination of what memory depends on most, those that need most first."""
    tunings: tuple[Tuning, ...] = ("full", "lora")
    places: tuple[Literal["device", "cpu"], ...] = ("device", "cpu")
    for tuning, reward_tuning, dtype, recompute, place in product(tunings, tunings, ITEM, (False, True), places):
        choice = Choice(
            tuning=tuning, reward_tuning=reward_tuning, dtype=dtype, recompute=recompute, optimiser_state=place
        )
        yield plan(shape, settings, choice)


def chosen(shape: Shape, settings: TrainerSettings, *, gpu: bool) -> Plan:
    """With the settings as they are; "auto" is taken for bfloat16 on a GPU, and else for float32, which needs more."""
    dtype = ("bfloat16" if gpu else "float32") if settings.dtype == "auto" else settings.dtype
    choice = Choice(
        tuning=settings.tuning,
        reward_tuning=settings.reward.tuning,
        dtype=dtype,
        recompute=settings.recompute,
        optimiser_state=settings.optimiser_state,
    )
    return plan(shape, settings, choice)


def scorer(shape: Shape, settings: TrainerSettings, dtype: str) -> int:
    """Bytes of the reward service at a swap: the version that scores, and the next one as it is read, in float32."""
    return PROCESS + shape.frozen(dtype, head=False) + WIDE * (shape.weights - shape.head)


def fits(shape: Shape, settings: TrainerSettings, memory: int, place: Place) -> Finding:
    """Whether the trainer fits into `memory` bytes, by how much not, and which setting would have it fit.

    Of a process that holds whole models: one whose weights are sharded needs less, so that nothing is refused then.
    """
    now = chosen(shape, settings, gpu=place != "a CPU")
    needed = now.needed(place)
    if needed <= memory:
        takes = f", and takes {_gib(now.taken(memory))}" if place == "a GPU" else ""
        return ok("memory", f"the trainer needs about {_gib(needed)} of {_gib(memory)} on {place}{takes}")
    what = (
        f"the trainer needs about {_gib(needed)} on {place} with {now.choice.told()}, and there are {_gib(memory)}: "
        f"{_gib(needed - memory)} too few"
    )
    if settings.sharding == "full":
        todo = "docs/decisions/0046-sharded-models.md has the bytes a weight for so many ranks"
        return warn("memory", f"{what}, in a process that holds whole models; pieces are not reckoned", todo)
    others = [(each.needed(place), each) for each in plans(shape, settings)]
    enough = [(bytes_, each) for bytes_, each in others if bytes_ <= memory]
    if not enough:
        least, each = min(others, key=lambda item: item[0])
        return refuse(
            "memory",
            what,
            f"a smaller model or more memory: {_changes(now.choice, each.choice)} would need {_gib(least)}",
        )
    bytes_, each = min(enough, key=lambda item: len(now.choice.changes(item[1].choice)))
    return refuse("memory", what, f"{_changes(now.choice, each.choice)} needs {_gib(bytes_)}")


def table(shape: Shape, settings: TrainerSettings) -> list[str]:
    """For people: a line a combination; activations are kept, or computed again, and moments lie where the settings
    say."""
    lines = [
        f"{shape.weights / 1e6:,.1f} million weights, {'bfloat16' if shape.narrow else 'not all bfloat16'}, "
        f"{shape.depth} layers of {shape.width}; GiB",
        f"{'tuning':<8}{'reward':<8}{'dtype':<10}{'GPU':>8}{'full passes':>13}{'its host':>10}{'CPU alone':>11}"
        f"{'reward service':>16}",
    ]
    for each in plans(shape, settings):
        now = each.choice
        if (now.recompute, now.optimiser_state) != (settings.recompute, settings.optimiser_state):
            continue
        sizes = (each.on_device, each.full_passes, each.on_host, each.on_cpu, scorer(shape, settings, now.dtype))
        gpu, full, host, cpu, service = (f"{size / GIB:.1f}" for size in sizes)
        name = f"{now.tuning:<8}{now.reward_tuning:<8}{now.dtype:<10}"
        lines.append(f"{name}{gpu:>8}{full:>13}{host:>10}{cpu:>11}{service:>16}")
    return lines


def row(shape: Shape, settings: TrainerSettings, each: Plan) -> dict[str, str | bool | int | dict[str, int]]:
    """For programs."""
    return {
        **asdict(each.choice),
        "gpu": each.on_device,
        "gpu_full_passes": each.full_passes,
        "host": each.on_host,
        "cpu": each.on_cpu,
        "reward_service": scorer(shape, settings, each.choice.dtype),
        "parts": parts(each),
    }


def memory() -> int:
    """Bytes that processes may have here: the machine's, or what the container is limited to."""
    total = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemTotal"))
    limits = [1024 * int(total.split()[1])]
    for path in LIMITS:
        with contextlib.suppress(OSError, ValueError):  # not there, or "max"
            limits.append(int(path.read_text()))
    return min(limits)


def parts(now: Plan) -> dict[str, int]:
    """Bytes by what they are for: what is held, then what each phase adds to it on device and host together."""
    added = {f"while {name}": size for name, size in now.added().items()}
    return {"the process itself": PROCESS, **now.held, **now.on_host_held, **added}


def _changes(one: Choice, other: Choice) -> str:
    return ", ".join(one.changes(other)) or "the same"


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


def _said(config: Mapping[str, Any], names: Sequence[str]) -> int:
    """Under the first of the names that there is; 0 for none."""
    return int(next((config[name] for name in names if config.get(name)), 0))


def _values(tensor: Tensor) -> int:
    return math.prod(tensor.shape)


def _power_of_two(values: int) -> int:
    """The smallest that is not less; 0 for 0."""
    return 1 << (values - 1).bit_length() if values else 0
