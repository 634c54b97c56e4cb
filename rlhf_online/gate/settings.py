"""The settings `[gate]`, and with them the checks."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from rlhf_online.config import Section
from rlhf_online.gate.audit import TraitsCheck
from rlhf_online.gate.check import Check
from rlhf_online.gate.disagreement import DisagreementCheck
from rlhf_online.gate.distinct import DistinctCheck
from rlhf_online.gate.entropy import EntropyCheck
from rlhf_online.gate.golden import GoldenCheck
from rlhf_online.gate.held_back import HeldBackCheck
from rlhf_online.gate.kl import KlCheck
from rlhf_online.gate.length import LengthCheck
from rlhf_online.gate.new_words import NewWordsCheck
from rlhf_online.gate.non_answers import NonAnswersCheck
from rlhf_online.gate.proxy_gap import ProxyGapCheck
from rlhf_online.gate.refusals import RefusalsCheck
from rlhf_online.gate.repetition import RepetitionCheck
from rlhf_online.gate.reward_model import RewardModelCheck
from rlhf_online.gate.win_rate import WinRateCheck


class GateSettings(Section):
    """Each check is a field here, and is asked in this order."""

    moved: ClassVar[Mapping[str, str]] = {
        "max_kl": "kl.max",
        "min_win_rate": "win_rate.min",
        "max_length_ratio": "length.max_ratio",
        "min_length_ratio": "length.min_ratio",
    }

    samples: int = Field(
        default=128, gt=0, description="Prompts on which the candidate answers against the live version."
    )
    kl: KlCheck = KlCheck()
    win_rate: WinRateCheck = WinRateCheck()
    held_back: HeldBackCheck = HeldBackCheck()
    proxy_gap: ProxyGapCheck = ProxyGapCheck()
    reward_model: RewardModelCheck = RewardModelCheck()
    disagreement: DisagreementCheck = DisagreementCheck()
    length: LengthCheck = LengthCheck()
    repetition: RepetitionCheck = RepetitionCheck()
    distinct: DistinctCheck = DistinctCheck()
    entropy: EntropyCheck = EntropyCheck()
    refusals: RefusalsCheck = RefusalsCheck()
    non_answers: NonAnswersCheck = NonAnswersCheck()
    golden: GoldenCheck = GoldenCheck()
    traits: TraitsCheck = TraitsCheck()
    new_words: NewWordsCheck = NewWordsCheck()

    @property
    def named(self) -> dict[str, Check]:
        return {name: value for name, value in self if isinstance(value, Check)}

    @property
    def checks(self) -> tuple[Check, ...]:
        return tuple(self.named.values())
