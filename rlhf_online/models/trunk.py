"""What the policy and the reward model share: loading transformers' models, LoRA, and writing both as safetensors.

Invariants: nothing is unpickled and nothing is fetched; random initial values come from a seed and leave torch's own
generator as it was; dropout is off, because a model stays in evaluation mode while it learns; no written file names
this machine's paths.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from rlhf_online.errors import InvalidInput, VersionCorrupt
from rlhf_online.models import precision, sharding
from rlhf_online.models.limits import ModelLimits, activation_bytes
from rlhf_online.models.loading import LOADING
from rlhf_online.models.precision import Written
from rlhf_online.models.tensor_headers import has_weights, read_header
from rlhf_online.versions.weight_files import weight_files

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ACTIVATION_BYTES = 2 << 30
"""Memory that the activations of one forward pass with gradients may take on a CPU, whatever is free: passes are cut
alike, and sums made in the same order, in every run."""
SHOWN_TENSORS = 3


def load_lm(folder: Path, *, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """The causal language model in `folder`. Raises InvalidInput if there is none that transformers can load."""
    return _load(AutoModelForCausalLM, folder, device, dtype)


def load_trunk(folder: Path, *, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """The model without its language head: of a causal language model, or as `save_model` wrote a trunk."""
    architectures = read_config(folder).architectures or [""]
    if architectures[0].endswith("ForCausalLM"):
        lm = load_lm(folder, device=device, dtype=dtype)
        return getattr(lm, lm.base_model_prefix)
    return _load(AutoModel, folder, device, dtype)


def random_lm(folder: Path, *, seed: int, device: torch.device) -> PreTrainedModel:
    """A causal language model of the configuration in `folder` with random weights, float32."""
    with seeded(seed), LOADING:
        model = AutoModelForCausalLM.from_config(read_config(folder), dtype=torch.float32)
    return model.to(device).eval()


def output_head(model: PreTrainedModel) -> torch.nn.Module:
    """The layer from the last hidden state to the logits."""
    head = model.get_output_embeddings()
    assert head is not None, "a causal language model has an output embedding"
    return head


def read_config(folder: Path) -> Any:
    """The model's configuration, with the names that transformers has for what each kind of model calls otherwise.

    Raises InvalidInput.
    """
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{folder} holds no model that transformers can read: {error}") from error


def _load(kind: Any, folder: Path, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    if not has_weights(folder):
        raise InvalidInput(f"{folder} holds no *.safetensors: give a folder with weights in that format")
    try:
        with LOADING, _quiet():
            model, report = kind.from_pretrained(
                folder,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InvalidInput(f"the model in {folder} cannot be loaded: {error}") from error
    # transformers gives a tensor that no file holds random values, and goes on.
    if missing := sorted(report["missing_keys"]):
        more = f" and {len(missing) - SHOWN_TENSORS} more" if len(missing) > SHOWN_TENSORS else ""
        raise InvalidInput(
            f"the weights in {folder} lack {', '.join(missing[:SHOWN_TENSORS])}{more}: fetch or convert the model "
            "again (`rlhf-online doctor` says more)"
        )
    return model.to(device).eval()


def save_model(model: PreTrainedModel, folder: Path, *, base: Path, written: Written, keep_config: bool) -> None:
    """Write weights under transformers' names, of the types `written`, and copy the configuration and tokenizer files
    of `base`.

    A tied tensor that the files of `base` hold twice is written twice: an engine on that base computes with both.
    With `keep_config` the configuration is that of `base`, byte for byte; else the model's own, for a trunk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _quiet(), writing():
        model.save_pretrained(folder, state_dict=_with_copies(_as_written(_tensors(model), written), base))
    own = {path.name for path in folder.iterdir()}
    for path in sorted(base.iterdir()):
        copied = path.suffix in (".json", ".jinja", ".txt", ".model") and not path.name.endswith(".index.json")
        ours = path.name in own and not keep_config
        if copied and not ours and path.name not in (ADAPTER_CONFIG, "manifest.json", "reward.json"):
            shutil.copyfile(path, folder / path.name)
    if not keep_config:
        config = json.loads((folder / "config.json").read_text())
        config.pop("_name_or_path", None)
        config["dtype"] = precision.name(written.usual)
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True))


def _tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """`model.state_dict()`, also of one that is sharded and `gathered`, which that would take apart."""
    found = {name: parameter.detach() for name, parameter in model.named_parameters(remove_duplicate=False)}
    for prefix, module in model.named_modules(remove_duplicate=False):
        temporary = module._non_persistent_buffers_set  # noqa: SLF001
        for name, buffer in module.named_buffers(recurse=False):
            if name not in temporary:
                found[f"{prefix}.{name}" if prefix else name] = buffer
    return found


def _as_written(tensors: dict[str, Tensor], written: Written) -> dict[str, Tensor]:
    """The tensors in their types; those that share memory still share it, in the type of the first."""
    cast: dict[int, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.data_ptr() not in cast:
            cast[tensor.data_ptr()] = tensor.to(written(name)) if tensor.is_floating_point() else tensor
    return {name: cast[tensor.data_ptr()] for name, tensor in tensors.items()}


def _with_copies(tensors: dict[str, Tensor], base: Path) -> dict[str, Tensor]:
    """`tensors` with those that share another's memory on their own, where the files of `base` have them so."""
    stored = {name for path in weight_files(base) for name in read_header(path)}
    first: dict[int, str] = {}
    for name, tensor in tensors.items():
        first.setdefault(tensor.data_ptr(), name)
    return {
        name: tensor.clone() if name in stored and first[tensor.data_ptr()] != name else tensor
        for name, tensor in tensors.items()
    }


class LoraSettings(Protocol):
    """Of whoever trains: a policy, a reward model, either offline."""

    lora_rank: int
    lora_layers: int


@dataclass(frozen=True, slots=True)
class Lora:
    """A new adapter: its rank, and how many of the model's layers, from the top, it changes (0: all)."""

    rank: int = 16
    layers: int = 0

    @classmethod
    def of(cls, settings: LoraSettings) -> "Lora":
        """As they say."""
        return cls(settings.lora_rank, settings.lora_layers)


def add_lora(model: PreTrainedModel, lora: Lora, *, folder: Path | None, seed: int, task: str | None) -> PeftModel:
    """Wrap `model`, in place, with an adapter on its linear layers: a new one that changes nothing, or `folder`'s.

    A folder without adapter stands for the base model. Raises VersionCorrupt for an adapter that does not fit.
    """
    stored = folder is not None and (folder / ADAPTER_CONFIG).is_file()
    depth = _depth(model)
    rank, numbers = lora.rank, range(depth - lora.layers, depth) if 0 < lora.layers < depth else None
    if folder is not None and stored:
        config = json.loads((folder / ADAPTER_CONFIG).read_text())
        rank, numbers = int(config["r"]), config.get("layers_to_transform")
        numbers = [numbers] if isinstance(numbers, int) else numbers  # peft takes both
    layers = [name for name in adapted_layers(model) if numbers is None or _layer(name)[1] in numbers]
    if not layers:
        raise InvalidInput(f"a {model.config.model_type!r} model has no linear layers to adapt: use tuning = 'full'")
    transposed = any(isinstance(module, Conv1D) for module in model.modules())
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules=layers,
        task_type=task,
        fan_in_fan_out=transposed,
    )
    with seeded(seed):
        wrapped = get_peft_model(model, config)
    assert isinstance(wrapped, PeftModel)
    if folder is not None and stored:
        load_adapter(wrapped, folder)
    return wrapped.eval()


def adapted_layers(model: PreTrainedModel) -> list[str]:
    """The layers that an adapter changes: all linear ones but the output embedding.

    Not peft's "all-linear", which also takes the experts of a mixture: transformers holds those of a layer in one
    tensor, and no engine serves such an adapter.
    """
    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    ]


def _depth(model: Any) -> int:
    return int(model.config.get_text_config().num_hidden_layers)


def _layer(name: str) -> tuple[str, int | None]:
    """The list of layers, and the number in it, of the one that a module belongs to, such as model.layers.7.mlp; None
    for a module beside them."""
    parts = name.split(".")
    at = next((index for index, part in enumerate(parts) if part.isdigit()), None)
    return ("", None) if not at else (parts[at - 1], int(parts[at]))


def load_adapter(wrapped: PeftModel, folder: Path) -> None:
    """Give the adapter the weights of the one in `folder`. Raises VersionCorrupt for one that does not fit."""
    rank = int(json.loads((folder / ADAPTER_CONFIG).read_text())["r"])
    own = wrapped.peft_config["default"]
    assert isinstance(own, LoraConfig)
    if rank != own.r:
        raise VersionCorrupt(f"the adapter in {folder} has another rank, {rank}: all versions must have the same")
    result = set_peft_model_state_dict(wrapped, load_file(folder / ADAPTER_WEIGHTS))
    missing = [name for name in result.missing_keys if "lora_" in name]
    if missing or result.unexpected_keys:
        raise VersionCorrupt(f"the adapter in {folder} does not fit its base model: train it anew")


def save_adapter(wrapped: PeftModel, folder: Path, dtype: torch.dtype) -> None:
    """Write the adapter as peft and vLLM read it, in that type, without a name of its base model's place."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    detached = {name: tensor.detach().to(dtype).cpu().contiguous() for name, tensor in weights.items()}
    with writing():
        save_file(detached, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    values = wrapped.peft_config["default"].to_dict()
    # peft spells all-linear out as every layer's path; the last parts name the same layers, in any layer.
    kinds = sorted({str(name).rsplit(".", 1)[-1] for name in values["target_modules"]})
    places = {_layer(str(name)) for name in values["target_modules"]}
    values |= {"base_model_name_or_path": "", "inference_mode": True, "target_modules": kinds}
    if len(places) < _depth(wrapped.get_base_model()):
        # Without the list's name peft finds no layer in a decoder that is not part of another module.
        values["layers_pattern"] = sorted({name for name, _ in places if name})
        values["layers_to_transform"] = sorted(number for _, number in places if number is not None)
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in values.items()}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(plain, indent=2, sort_keys=True, default=str))


def token_budget(model: PreTrainedModel, limit: int, room: int, dtype: torch.dtype, spared: int = 0) -> int:
    """`limit`, or fewer tokens where a forward pass with gradients in `dtype` would take more than `room` bytes; none
    go through the lowest `spared` layers."""
    config: Any = model.config
    width, inner = int(config.hidden_size), int(getattr(config, "intermediate_size", 4 * config.hidden_size))
    a_token = activation_bytes(
        int(config.num_hidden_layers) - spared, width, inner, dtype.itemsize, recompute=model.is_gradient_checkpointing
    )
    return max(1, min(limit, room // a_token))


def free_room(device: torch.device, needed: int = 0) -> int:
    """Bytes that a forward pass with gradients may take now: of a GPU half of what is free once `needed` is taken."""
    if device.type != "cuda":
        return ACTIVATION_BYTES
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (torch.cuda.mem_get_info(device)[0] + cached - needed) // 2


def usual_room(device: torch.device) -> int:
    """The same whatever is free: of a GPU a quarter of its memory."""
    return torch.cuda.get_device_properties(device).total_memory // 4 if device.type == "cuda" else ACTIVATION_BYTES


def limits(config: Any) -> ModelLimits:
    """What the model was made to read."""
    context = int(getattr(config, "max_position_embeddings", 1 << 30))
    return ModelLimits(vocabulary=int(config.vocab_size), context=context)


def pick_device(name: str) -> torch.device:
    """The device that "auto", "cpu" or "cuda" stands for. Raises InvalidInput if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InvalidInput("device is 'cuda', and torch finds no GPU: use 'auto' or 'cpu'")
    return torch.device(name)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's generator begins at `seed`, and is put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def named(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, each name behind `prefix` and a dot, as safetensors can hold them (`sharding.on_cpu`)."""
    return below(prefix, {name: sharding.on_cpu(tensor) for name, tensor in tensors.items()})


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, each name behind `prefix` and a dot."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def unnamed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What `named` or `below` put behind `prefix`."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


@contextmanager
def swapped(parameters: Mapping[str, torch.nn.Parameter], tensors: dict[str, Tensor]) -> Iterator[None]:
    """While the block runs the parameters hold the tensors of the same names, and the other way round; no copies, but
    of what is sharded, of which a tensor is this process's piece."""

    def swap() -> None:
        for name, parameter in parameters.items():
            if sharding.is_sharded(parameter):
                sharding.exchange(sharding.piece(parameter), tensors[name])
            else:
                parameter.data, tensors[name] = tensors[name], parameter.data

    swap()
    try:
        yield
    finally:
        swap()


def restore(parameters: Mapping[str, torch.nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """Copy `tensors` into the parameters of the same names. Raises VersionCorrupt if they are others."""
    check_names(parameters, tensors)
    for name, tensor in tensors.items():
        sharding.put(parameters[name], tensor)


def check_names(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Raises VersionCorrupt if `tensors` are of other names or shapes than `own`."""
    if not same_names(own, tensors):
        raise VersionCorrupt("the stored weights belong to another model or another kind of tuning: start a new state")


def same_names(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> bool:
    """Whether both have the same names, and under each a tensor of the same shape."""
    return own.keys() == tensors.keys() and all(own[name].shape == tensor.shape for name, tensor in tensors.items())


@contextmanager
def writing() -> Iterator[None]:
    """A full disk is an OSError in the block, as it is elsewhere: safetensors has an error of its own for it."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"weights cannot be written: {error}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars and notes about unused weights."""
    level, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()
