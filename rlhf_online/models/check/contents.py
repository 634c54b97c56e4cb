"""What transformers says of a model folder: its tokenizer and template as they work, its tensors against those that the
configuration asks for. Models are made on the meta device: no weights are read, and a large model takes no longer.
"""

from collections.abc import Iterator
from pathlib import Path
from textwrap import shorten
from typing import Any, cast

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils import logging

from rlhf_online.errors import InvalidInput
from rlhf_online.events import Message
from rlhf_online.models.check import Finding, vllm_source
from rlhf_online.models.check.folder import NO_TEMPLATE, inspect_folder, read_config
from rlhf_online.models.loading import LOADING
from rlhf_online.models.tensor_headers import Tensor, read_header
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.models.trunk import adapted_layers
from rlhf_online.versions.weight_files import weight_files

SHOWN, SHOWN_LETTERS = 3, 200
REWRITE = "load the model with transformers and write it anew with save_pretrained"
AGAIN = "fetch or convert the model again"
HEAD = "lm_head.weight"


def inspect(folder: Path, *, tuning: str, served: bool = True, cpu: bool | None = None) -> list[Finding]:
    """All findings, `inspect_folder`'s first; see there for what is given."""
    found = inspect_folder(folder, tuning=tuning, served=served, cpu=cpu)
    refused = {finding.about for finding in found if finding.severity == "refuse"}
    if "folder" in refused:
        return found
    logging.set_verbosity_error()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        kind: type[PreTrainedModel] = cast(Any, MODEL_FOR_CAUSAL_LM_MAPPING[type(config)])
    except (OSError, ValueError, KeyError) as error:
        if "architecture" in refused:
            return found
        if read_config(folder / "config.json").get("auto_map"):
            why = "it needs code of its own, which is not run: auto_map in its config.json"
        else:
            why = shorten(str(error), SHOWN_LETTERS, placeholder=" …")
        todo = "take a model of a kind that transformers knows without code of the model's own"
        return [*found, Finding("refuse", "architecture", f"cannot be read by transformers ({why})", todo)]
    if served and vllm_source.serves(kind.__name__) is False and not kind.is_backend_compatible():
        what = f"is a {kind.__name__}, which the installed vLLM can serve neither by itself nor through transformers"
        found.append(Finding("refuse", "architecture", what, "take a model of another kind"))
    found += _conversation(folder, int(config.vocab_size), served, templated="chat template" not in refused)
    if not refused & {"weights", "architecture"} and weight_files(folder):
        found += _tensors(folder, config, kind, tuning, served)
    return found


def _conversation(folder: Path, vocabulary: int, served: bool, *, templated: bool) -> Iterator[Finding]:
    try:
        tokenizer = ChatTokenizer(folder)
    except InvalidInput as error:
        yield Finding("refuse", "tokenizer", f"has a tokenizer that cannot be used ({error})", AGAIN)
        return
    yield from _ids(tokenizer, vocabulary)
    if not templated:
        return
    if not tokenizer.has_template:
        yield NO_TEMPLATE
        return
    try:
        tokenizer.prompt_ids([Message(role="user", content="hello")])
        after = tokenizer.template.after_answer()
    except InvalidInput as error:
        yield Finding(
            "refuse", "chat template", f"has a chat template that cannot be used ({error})", "mend or replace it"
        )
        return
    end = tokenizer.turn_end
    if end is None and after is not None:
        yield Finding(
            "warn",
            "chat template",
            f"ends an assistant's turn with {after!r} in its chat template, which is no token of its own",
            f"answers are taught to end with {tokenizer.token(tokenizer.eos_ids[0])}",
        )
    elif end is not None and end not in tokenizer.stop_ids:
        yield Finding(
            "refuse" if served else "warn",
            "chat template",
            f"ends an assistant's turn with {tokenizer.token(end)}, at which the engine would not stop",
            f"add {end} to eos_token_id in its generation_config.json",
        )


def _ids(tokenizer: ChatTokenizer, vocabulary: int) -> Iterator[Finding]:
    beyond = {index: token for token, index in tokenizer.vocabulary.items() if index >= vocabulary}
    if not beyond:
        return
    first = min(beyond)
    told = f"has a tokenizer with ids up to {max(beyond)}, and its model knows those below {vocabulary}"
    if all(tokenizer.added(index) for index in beyond) and not beyond.keys() & set(tokenizer.eos_ids):
        yield Finding(
            "warn", "tokenizer", f"{told} (it lacks {beyond[first]!r})", "texts with such a token are refused"
        )
    else:
        yield Finding("refuse", "tokenizer", f"{told} (it lacks {beyond[first]!r})", "take the tokenizer of this model")


def _tensors(folder: Path, config: Any, kind: type[PreTrainedModel], tuning: str, served: bool) -> Iterator[Finding]:
    with LOADING, torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    expected = {name: tuple(tensor.shape) for name, tensor in written(model).items()}
    headers = {name: tensor for path in weight_files(folder) for name, tensor in read_header(path).items()}
    optional = {HEAD} if config.tie_word_embeddings else set()
    wrong = sorted(name for name in expected.keys() & headers.keys() if expected[name] != headers[name].shape)
    if wrong:
        name = wrong[0]
        yield _refuse(
            f"holds {name} of shape {headers[name].shape}, where its config.json asks for {expected[name]}"
            + _more(wrong, 1),
            AGAIN,
        )
        return
    lacking = sorted(expected.keys() - headers.keys() - optional)
    extra = sorted(headers.keys() - expected.keys() - optional)
    if lacking:
        if not _all_found(kind, config, headers):
            yield _refuse(f"lacks {_list(lacking)}" + (f", and holds {extra[0]}" if extra else ""), AGAIN)
        else:
            yield _refuse(f"names its tensors otherwise than the engine does ({extra[0]} for {lacking[0]})", REWRITE)
        return
    if extra and tuning == "full" and served:
        yield _refuse(f"holds {_list(extra)}, which learned versions would lack", REWRITE)
    elif extra:
        yield Finding("warn", "weights", f"holds {_list(extra)}, which its kind of model does not have", "ignored")
    if tuning == "lora" and served:
        yield from _adapted(model, headers)


def _adapted(model: PreTrainedModel, headers: dict[str, Tensor]) -> Iterator[Finding]:
    layers = {name: model.get_submodule(name) for name in adapted_layers(model)}
    odd = [
        name
        for name, layer in layers.items()
        if f"{name}.weight" not in headers
        or headers[f"{name}.weight"].shape[:1] != (getattr(layer, "out_features", 0),)
    ]
    if odd or not layers:
        what = f"has {odd[0]}, which an engine's adapter cannot change" if odd else "has no linear layers to adapt"
        yield Finding("refuse", "LoRA", what, "train all weights, with --tuning full")
    elif any(hasattr(module, "experts") for module in model.modules()):
        yield Finding(
            "warn", "LoRA", "is a mixture of experts", "an adapter changes its attention and shared layers alone"
        )


def written(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The tensors under the names that save_pretrained gives them, tied ones once."""
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        state.pop(HEAD, None)
    return revert_weight_conversion(model, state)


def _all_found(kind: type[PreTrainedModel], config: Any, headers: dict[str, Tensor]) -> bool:
    """Whether transformers would find every tensor under one of the names that it knows."""
    stand_ins: Any = {name: torch.empty(tensor.shape, device="meta") for name, tensor in headers.items()}
    load: Any = kind.from_pretrained
    try:
        with LOADING:
            _, report = load(None, config=config, state_dict=stand_ins, device_map="meta", output_loading_info=True)
    except RuntimeError:  # parts of a tensor that is put together from several
        return False
    return not report["missing_keys"]


def _list(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + _more(names, SHOWN)


def _more(names: list[str], shown: int) -> str:
    return f" and {len(names) - shown} more" if len(names) > shown else ""


def _refuse(what: str, todo: str) -> Finding:
    return Finding("refuse", "weights", what, todo)
