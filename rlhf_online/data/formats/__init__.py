"""The formats of files, by the names of `--format`: each a function from a row's values to what the row says."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rlhf_online.data import fields
from rlhf_online.data.formats import (
    hh_rlhf,
    langfuse,
    langsmith,
    oasst,
    open_webui,
    openai,
    plain_csv,
    shp,
    summarize,
    trl,
    ultrafeedback,
    votes,
    webgpt,
)
from rlhf_online.data.rows import Row
from rlhf_online.errors import InvalidInput, RowRefused


@dataclass(frozen=True, slots=True)
class Format:
    """`read` gives what a row says, or raises RowRefused; of a row that holds several things, those that cannot be used
    come as RowRefused among the others. `known` are the fields that it looks at, or knows to pass over."""

    about: str
    read: Callable[[fields.Values], Iterator[Row | RowRefused]]
    known: frozenset[str]
    is_csv: bool = False

    @property
    def takes_circumstances(self) -> bool:
        """Whether a row may say who judged it, when and why."""
        return self.read in (trl.read_preference, trl.read_unpaired, openai.read, plain_csv.read, votes.read)

    @property
    def names_exchanges(self) -> bool:
        """Whether the file's names make those of its exchanges, which no other file knows."""
        return self.read in (ultrafeedback.read, open_webui.read, langsmith.read, langfuse.read)


FORMATS = {
    "hh-rlhf": Format("Anthropic's HH-RLHF: two transcripts a row", hh_rlhf.read, hh_rlhf.FIELDS),
    "shp": Format("Stanford Human Preferences: a post, two comments", shp.read, shp.FIELDS),
    "ultrafeedback": Format("UltraFeedback, raw: scored answers", ultrafeedback.read, ultrafeedback.FIELDS),
    "ultrafeedback-binarized": Format(
        "UltraFeedback, binarised: chosen and rejected", ultrafeedback.read_binarised, ultrafeedback.BINARISED_FIELDS
    ),
    "oasst": Format("OpenAssistant's trees: ranked replies", oasst.read, oasst.FIELDS),
    "webgpt": Format("WebGPT's comparisons: two scored answers", webgpt.read, webgpt.FIELDS),
    "summarize-from-feedback": Format(
        "OpenAI's comparisons of summaries: a post, two summaries", summarize.read, summarize.FIELDS
    ),
    "trl-preference": Format("TRL: prompt, chosen, rejected", trl.read_preference, trl.FIELDS),
    "trl-implicit-prompt": Format("TRL: chosen and rejected, the prompt in both", trl.read_preference, trl.FIELDS),
    "trl-unpaired": Format("TRL: prompt, completion, label", trl.read_unpaired, trl.FIELDS),
    "openai-preference": Format("OpenAI's preference fine-tuning", openai.read, openai.FIELDS),
    "open-webui": Format("Open WebUI's feedback export", open_webui.read, open_webui.FIELDS),
    "langsmith": Format("LangSmith: runs and feedback", langsmith.read, langsmith.FIELDS),
    "langfuse": Format("Langfuse: traces and scores", langfuse.read, langfuse.FIELDS),
    "csv": Format(
        "CSV: prompt, chosen, rejected; or prompt, completion, label", plain_csv.read, plain_csv.FIELDS, True
    ),
    "votes": Format("`data export`'s own: prompt, answers, a judgement of any kind", votes.read, votes.FIELDS),
}


def format_named(name: str) -> Format:
    """Raises InvalidInput for one that nobody knows."""
    if name not in FORMATS:
        raise InvalidInput(f"no format is called {name!r}: {', '.join(FORMATS)}")
    return FORMATS[name]
