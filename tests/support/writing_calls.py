"""Which functions of the product write, rename or remove files: found in the source, so that none can be left out."""

import ast
from collections.abc import Iterator
from pathlib import Path

# fmt: off
_CHANGES = frozenset((
    "append_lines", "copy2", "copyfile", "copytree", "fdatasync", "fsync", "fsync_file", "fsync_folder",
    "fsync_tree", "ftruncate", "hardlink_to", "link", "make_folder", "makedirs", "mkdir", "move", "pwrite",
    "pwritev", "rename", "rmdir", "rmtree", "save_file", "save_pretrained", "symlink_to", "touch", "truncate",
    "unlink", "write_bytes", "write_json", "write_once", "write_text",
))
# fmt: on


def writing_functions(root: Path) -> set[str]:
    """ "module:Class.function" of each, below the packages in `root`."""
    found: set[str] = set()
    for package in ("rlhf_online", "services"):
        for path in (root / package).rglob("*.py"):
            module = ".".join(path.relative_to(root).with_suffix("").parts)
            for name, function in _functions(ast.parse(path.read_text())):
                if any(_changes(node) for node in ast.walk(function) if isinstance(node, ast.Call)):
                    found.add(f"{module}:{name}")
    return found


def _functions(tree: ast.AST, within: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Outermost functions and methods, with their names."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield within + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{within}{node.name}.")


def _changes(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in ("open", "fdopen"):
        words = [node.value for each in call.args for node in ast.walk(each) if isinstance(node, ast.Constant)]
        modes = [word for word in words if isinstance(word, str) and len(word) < 4 and set(word) & set("wax+")]
        flags = {node.attr for each in call.args for node in ast.walk(each) if isinstance(node, ast.Attribute)}
        return bool(modes) or bool(flags & {"O_CREAT", "O_WRONLY", "O_TRUNC"})
    if name == "replace":  # a path's or os.replace: a text's takes two texts, other replacements take keywords
        of_os = isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") == "os"
        return of_os or (isinstance(call.func, ast.Attribute) and len(call.args) == 1 and not call.keywords)
    return name in _CHANGES
