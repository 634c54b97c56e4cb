"""Nothing grows crowded unnoticed: how long functions, modules and classes may be before a new one is due.

A class may be larger where its docstring says why: it then holds a sentence that begins with "Large because".
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FUNCTION_LINES, MODULE_LINES, METHODS, ATTRIBUTES, PARAMETERS, IGNORES = 60, 400, 15, 12, 8, 15
EXCUSE = "Large because"
COMMANDS = ROOT / "rlhf_online" / "cli"
"""Functions whose parameters are a command's options."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def product() -> Iterator[tuple[Path, str]]:
    for folder in ("rlhf_online", "services"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "proto" not in path.parts:
                yield path, path.read_text()


def oversized(path: Path, source: str) -> Iterator[str]:
    if (lines := source.count("\n")) > MODULE_LINES:
        yield f"{path.name}: {lines} lines"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function):
            yield from _function(path, node)
        elif isinstance(node, ast.ClassDef) and EXCUSE not in " ".join((ast.get_docstring(node) or "").split()):
            yield from _class(path, node)


def _function(path: Path, node: Function) -> Iterator[str]:
    assert node.end_lineno is not None
    if (lines := node.end_lineno - node.lineno + 1) > FUNCTION_LINES:
        yield f"{path.name}: {node.name} has {lines} lines"
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    count = len([name for name in names if name not in ("self", "cls")])
    if count > PARAMETERS and not path.is_relative_to(COMMANDS):
        yield f"{path.name}: {node.name} has {count} parameters"


def _class(path: Path, node: ast.ClassDef) -> Iterator[str]:
    methods = [item for item in node.body if isinstance(item, Function)]
    attributes = {
        place.attr
        for method in methods
        for place in ast.walk(method)
        if isinstance(place, ast.Attribute) and isinstance(place.ctx, ast.Store) and _is_self(place.value)
    }
    if len(methods) > METHODS:
        yield f"{path.name}: {node.name} has {len(methods)} methods"
    if len(attributes) > ATTRIBUTES:
        yield f"{path.name}: {node.name} has {len(attributes)} attributes"


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def test_functions_modules_and_classes_keep_their_size() -> None:
    assert [found for path, source in product() for found in oversized(path, source)] == []


def test_the_type_checker_is_silenced_rarely() -> None:
    marker = "pyright: " + "ignore"
    paths = [
        path for folder in ("rlhf_online", "services", "scripts", "tests") for path in (ROOT / folder).rglob("*.py")
    ]
    counts = {path.name: path.read_text().count(marker) for path in paths if "proto" not in path.parts}
    assert sum(counts.values()) <= IGNORES, {name: count for name, count in counts.items() if count}


def test_what_is_too_large_is_named() -> None:
    body = "".join(f"    x = {line}\n" for line in range(FUNCTION_LINES))
    assert list(oversized(Path("a.py"), f"def f():\n{body}")) == ["a.py: f has 61 lines"]
    methods = "".join(f"    def m{number}(self): self.a{number} = 1\n" for number in range(METHODS + 1))
    assert list(oversized(Path("a.py"), f"class C:\n{methods}")) == [
        "a.py: C has 16 methods",
        "a.py: C has 16 attributes",
    ]
    assert list(oversized(Path("a.py"), f'class C:\n    """Large because it is told so."""\n{methods}')) == []
