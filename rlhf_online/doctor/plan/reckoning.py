"""What the trainer holds at which moment: arithmetic over a model's shape and the settings; no torch.

    held       what is there all the time: weights that learn and such that do not, Adam's moments (the host's, if
               they are kept there)
    a phase    what comes on top for a while: the policy learns, the reward model learns, a checkpoint is written

The phase that needs most decides. On a GPU weights, moments, gradients and activations are the device's, copies (to
take an update back, for a checkpoint) the host's; on a CPU both are one. Of several ranks each holds what one process
does; of models that are cut (`models.sharding`) it keeps an N-th, puts layers together where it learns and the whole
model where it is asked, and rank 0 has checkpoints and versions besides, whole. Sizes are bytes, of one rank.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import Literal

from rlhf_online.config import Sharding, Tuning
from rlhf_online.doctor.plan.part import Part
from rlhf_online.doctor.plan.shape import WIDE, Shape, power_of_two
from rlhf_online.models.limits import KEPT_BYTES, activation_bytes
from rlhf_online.training.settings import TrainerSettings

Place = Literal["a GPU", "a GPU's host", "a CPU"]

ITEM = {"float32": 4, "bfloat16": 2}
"""Bytes of a number."""
NARROW, MOMENTS, COPY = 2, 8, 12
"""Bytes a weight: bfloat16, Adam's two moments, and a copy of weight and moments."""
PROCESS = 750 << 20
"""Of a process that has imported torch, transformers and peft, on a CPU, their libraries' pages included."""
ACTIVATIONS, FREE_SHARE = 2 << 30, 2
"""Most that a pass with gradients takes: bytes on a CPU, and one of so many parts of what is free on a GPU
(`models.trunk`)."""
REWARD_TOKENS, ANSWERS = 16_384, 4
"""Most tokens of a pass of the reward model, and answers of a vote; prompt and answer count as `rollout.max_tokens`."""
MOMENTS_KEPT = "Adam's moments"
POLICY_LEARNS = "the policy learns: gradients, activations"
REWARD_LEARNS = "the reward model learns: gradients, activations"
POLICY_READ = "the policy's answers are measured, whole, with its reference"
STEP_READ = "the policy's step is measured, whole"
REWARD_READ = "the reward model's votes are measured, whole"
WRITTEN = "a version is written"
READ = "the models are read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """`number` processes that train together, `here` of them on one machine."""

    number: int = 1
    here: int = 1

    @property
    def nodes(self) -> int:
        return self.number // self.here

    def each(self, here: int) -> "Ranks":
        """So many on each of the machines."""
        return Ranks(number=here * self.nodes, here=here)


ALONE = Ranks()


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The settings of the trainer that memory depends on most."""

    tuning: Tuning
    reward_tuning: Tuning
    dtype: str
    recompute: bool = False
    optimiser_state: Literal["device", "cpu"] = "device"
    sharding: Sharding = "none"

    def changes(self, other: "Choice") -> list[str]:
        """The settings in which `other` differs, as it has them."""
        now = self.said()
        return [f"{name} = {value}" for name, value in other.said().items() if value != now[name]]

    def told(self) -> str:
        """For people: the settings that a plan is known by, and those that are not the usual ones."""
        away = ", optimiser_state 'cpu'" if self.optimiser_state == "cpu" else ""
        away += ", sharding 'full'" if self.sharding == "full" else ""
        return f"tuning '{self.tuning}', reward.tuning '{self.reward_tuning}'{away} and dtype '{self.dtype}'"

    def said(self) -> dict[str, str]:
        """As the trainer's settings say it."""
        values = {name.replace("reward_", "reward."): value for name, value in asdict(self).items()}
        return {name: str(value).lower() if isinstance(value, bool) else repr(value) for name, value in values.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Bytes of a process by part, of its device and of its host; on a CPU one process needs both.

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
    reading: int
    """What a host takes for a model on its way to the GPU."""

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
        return PROCESS + sum(self.on_host_held.values()) + self.rounding + max(*self.host.values(), self.reading)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trainer:
    """The trainer's models in one rank; `leads` says that it is rank 0."""

    shape: Shape
    settings: TrainerSettings
    choice: Choice
    leads: bool
    policy: Part
    reward: Part

    @property
    def judges(self) -> int:
        """Reward models: the policy's, and the gate's own."""
        return 2 if self.settings.gate.held_back.share else 1

    @property
    def on_cpu(self) -> bool:
        """Whether the host keeps Adam's moments."""
        return self.choice.optimiser_state == "cpu"

    @property
    def learning(self) -> int:
        return self.policy.kept + self.judges * self.reward.kept

    @property
    def tuned(self) -> int:
        """Models of which all learns."""
        return (self.choice.tuning == "full") + self.judges * (self.choice.reward_tuning == "full")

    @property
    def pieces(self) -> int:
        """In how many the models are cut of which all learns."""
        return max(self.policy.pieces, self.reward.pieces)

    @property
    def reference(self) -> int:
        """Bytes of the policy's reference, or of the base below its adapter, as the rank keeps it."""
        return self.shape.frozen(self.choice.dtype, head=True) // self.policy.pieces

    @property
    def average(self) -> int:
        return WIDE * self.policy.kept if self.settings.policy.ema else 0

    def held(self) -> dict[str, int]:
        shape, on_cpu = self.shape, self.on_cpu
        apart = bool(self.settings.reward.trunk) or self.policy.pieces > 1  # a piece cannot be the base of an adapter
        return {
            "what learns": WIDE * self.learning + self.average,
            MOMENTS_KEPT: 0 if on_cpu else MOMENTS * self.learning,
            "moments of a tensor at its step": MOMENTS * self.tuned * shape.largest // self.pieces if on_cpu else 0,
            "the policy's base or reference": self.reference,
            "the reward model's base, if it is another": shape.frozen(self.choice.dtype, head=False)
            if apart and self.choice.reward_tuning == "lora"
            else 0,
        }

    def device(self) -> dict[str, int]:
        shape, policy, reward, choice = self.shape, self.policy, self.reward, self.choice
        cast = NARROW * shape.layers if choice.dtype == "bfloat16" else 0
        found = {
            POLICY_LEARNS: WIDE * policy.kept + policy.passing + (cast if choice.tuning == "full" else 0),
            REWARD_LEARNS: WIDE * reward.kept + reward.passing + (cast if choice.reward_tuning == "full" else 0),
            READ: self._reading(),
        }
        found[POLICY_LEARNS] += _lower_states(shape, policy, self.settings.rollout.per_cycle * self._answer())
        found[REWARD_LEARNS] += _lower_states(shape, reward, self.settings.reward.reference_answers * self._answer())
        rounded = WIDE * policy.kept if shape.narrow else 0
        if policy.gathered:
            found[POLICY_READ] = rounded + policy.gathered + policy.pieces * self.reference
            found[STEP_READ] = WIDE * policy.kept + policy.gathered
        if reward.gathered:
            found[REWARD_READ] = WIDE * reward.kept + reward.gathered
        files = NARROW * policy.values if self.leads and shape.narrow else 0
        found[WRITTEN] = policy.gathered + rounded + files
        return found

    def _reading(self) -> int:
        """A model is read whole, as float32, before what is frozen of it is narrowed and shared, or all of it cut; the
        last one has no moments yet."""
        shape, moments = self.shape, 0 if self.on_cpu else MOMENTS
        last = self.reward.kept if self.judges > 1 else self.policy.kept
        if self.pieces == 1:
            passing = 0 if self.choice.tuning == self.choice.reward_tuning == "full" else WIDE * shape.weights
            return max(0, passing - moments * last)
        policy = (2 if self.policy.pieces > 1 else 1) * WIDE * shape.weights
        own = (WIDE + moments) * self.policy.kept + self.reference
        return max(0, policy - own, WIDE * shape.weights - (WIDE + moments) * self.reward.kept)

    def host(self) -> dict[str, int]:
        policy, reward = self.policy, self.reward
        undo = {POLICY_LEARNS: COPY * policy.kept, REWARD_LEARNS: COPY * reward.kept}
        undo |= {STEP_READ: undo[POLICY_LEARNS]} if policy.gathered else {}
        undo |= {REWARD_READ: undo[REWARD_LEARNS]} if reward.gathered else {}
        whole = COPY * policy.values + self.average * policy.pieces
        if self.leads:
            stored = {
                "a checkpoint of the reward models": COPY * self.judges * reward.values + WIDE * policy.values,
                "a checkpoint of the policy": whole,
            }
        else:
            stored = {"a checkpoint is gone back to": max(whole, COPY * reward.values)}
        return {READ: self.shape.stored, **undo, **stored}

    def rounding(self) -> int:
        """Of moments in pinned memory: each tensor's is rounded up."""
        shape, judging = self.shape, self.judges * (self.choice.reward_tuning == "full")
        pinned = shape.pinned * self.tuned - power_of_two(shape.head) * judging
        return MOMENTS * (pinned - shape.weights * self.tuned + shape.head * judging) // self.pieces

    def activations(self) -> dict[str, int]:
        """Of passes as full as settings allow."""
        settings = self.settings
        votes = min(REWARD_TOKENS, settings.reward.batch * ANSWERS * self._answer())
        return {
            POLICY_LEARNS: settings.policy.micro_batch_tokens * _a_token(self.shape, self.choice, self.policy),
            REWARD_LEARNS: votes * _a_token(self.shape, self.choice, self.reward),
        }

    def least(self) -> dict[str, int]:
        """Of passes of the fewest tokens."""
        answer = self._answer()
        fewest = {
            POLICY_LEARNS: answer * _a_token(self.shape, self.choice, self.policy),
            REWARD_LEARNS: ANSWERS * answer * _a_token(self.shape, self.choice, self.reward),
        }
        return {name: min(size, fewest[name]) for name, size in self.activations().items()}

    def _answer(self) -> int:
        """Tokens, with its prompt."""
        return 2 * self.settings.rollout.max_tokens


def _a_token(shape: Shape, choice: Choice, part: Part) -> int:
    """Bytes of a token's activations, in the layers that a gradient goes through."""
    return activation_bytes(part.depth, shape.width, shape.inner, ITEM[choice.dtype], recompute=choice.recompute)


def _lower_states(shape: Shape, part: Part, tokens: int) -> int:
    """Bytes of what layers below an adapter said of so many tokens (`models.lower_layers`)."""
    return min(KEPT_BYTES, tokens * WIDE * shape.width) if part.depth < shape.depth else 0


def plan(shape: Shape, settings: TrainerSettings, choice: Choice, ranks: Ranks = ALONE, *, leads: bool = True) -> Plan:
    """What a rank of the trainer needs with these, and else as its settings say: rank 0, or another."""
    pieces = ranks.number if choice.sharding == "full" else 1
    own = _Trainer(
        shape=shape,
        settings=settings,
        choice=choice,
        leads=leads,
        policy=Part.of(shape, choice.tuning, settings.policy, pieces, head=True),
        reward=Part.of(shape, choice.reward_tuning, settings.reward, pieces, head=False),
    )
    return Plan(
        choice=choice,
        held=own.held(),
        on_host_held={f"{MOMENTS_KEPT}, on the host": MOMENTS * own.learning} if own.on_cpu else {},
        rounding=own.rounding() if own.on_cpu else 0,
        device=own.device(),
        activations=own.activations(),
        least=own.least(),
        host=own.host(),
        reading=WIDE * shape.weights + shape.stored,
    )


def needed(shape: Shape, settings: TrainerSettings, choice: Choice, place: Place, ranks: Ranks = ALONE) -> int:
    """Bytes of the memory there: of a GPU, which one rank has, or of the machine, which those on it share."""
    first = plan(shape, settings, choice, ranks)
    if place == "a GPU":
        return first.on_device
    other = plan(shape, settings, choice, ranks, leads=False)
    if place == "a CPU":
        return first.on_cpu + (ranks.here - 1) * other.on_cpu
    return first.on_host + (ranks.here - 1) * other.on_host


def choices(settings: TrainerSettings) -> Iterator[Choice]:
    """Every combination of what memory depends on most, those that need most first."""
    tunings: tuple[Tuning, ...] = ("full", "lora")
    places: tuple[Literal["device", "cpu"], ...] = ("device", "cpu")
    for tuning, reward_tuning, dtype, recompute, place in product(tunings, tunings, ITEM, (False, True), places):
        yield Choice(
            tuning=tuning,
            reward_tuning=reward_tuning,
            dtype=dtype,
            recompute=recompute,
            optimiser_state=place,
            sharding=settings.sharding,
        )


def chosen(settings: TrainerSettings, *, gpu: bool) -> Choice:
    """The settings as they are; "auto" is taken for bfloat16 on a GPU, and else for float32, which needs more."""
    dtype = ("bfloat16" if gpu else "float32") if settings.dtype == "auto" else settings.dtype
    return Choice(
        tuning=settings.tuning,
        reward_tuning=settings.reward.tuning,
        dtype=dtype,
        recompute=settings.recompute,
        optimiser_state=settings.optimiser_state,
        sharding=settings.sharding,
    )


def scorer(shape: Shape, settings: TrainerSettings, dtype: str) -> int:
    """Bytes of the reward service at a swap: the version that scores, and the next one as it is read, in float32."""
    return PROCESS + shape.frozen(dtype, head=False) + WIDE * (shape.weights - shape.head)
