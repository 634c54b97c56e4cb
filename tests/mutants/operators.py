"""Small wrong changes of a function: what a tired person might write, and a test should notice.

    boundary     < ↔ ≤, > ↔ ≥
    comparison   == ↔ !=, is ↔ is not, in ↔ not in, < ↔ >, ≤ ↔ ≥
    condition    if c → if not c, not c → c
    logic        and ↔ or
    arithmetic   + ↔ −, × ↔ ÷, // → /, % → ×
    sign         −x → x
    constant     n → n + 1, from 10 on n → 2 n, x → 2 x, True ↔ False
    extreme      min ↔ max, any ↔ all, argmin ↔ argmax, minimum ↔ maximum
    shift        a[:n] → a[:n + 1], a[n:] → a[n + 1:], range(n) → range(n + 1)
    swap         f(a, b) → f(b, a)
    unwrap       x.detach(), x.clamp(…), sorted(x), … → x
    drop         a call, a raise, continue, break, return, x += … or self.x = … is left out

Not touched: annotations, docstrings, assertions (and `zip`'s, strict=True), text, what is raised, what is logged, and
the defaults and decorators of functions. A change is text put in the place of other text, so that the rest of the file
stays as it is, and its `key` stays the same while lines are added above it.
"""

import ast
import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

Function = ast.FunctionDef | ast.AsyncFunctionDef
Node = TypeVar("Node", bound=ast.AST)
MODULE = "<module>"
"""Where the constants of a module stand."""

BOUNDARIES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt
}  # fmt: skip
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE,
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.Mult
}  # fmt: skip
EXTREMES = {"min": "max", "any": "all", "argmin": "argmax", "minimum": "maximum"}
EXTREMES |= {new: old for old, new in EXTREMES.items()}
UNWRAPPED = {"detach", "clamp", "clamp_", "clone", "copy", "abs", "round", "sorted", "reversed"}
SYMMETRIC = {"min", "max", "minimum", "maximum", "isinstance", "issubclass", "getattr", "zip", "gcd", "logaddexp"}
"""Calls whose arguments are not swapped: it would change nothing, or never run."""
SKIPPED = {"annotation", "returns", "decorator_list"}
LOGS = {"log", "_log", "logger", "structlog", "warnings"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """`before`, at an offset of the module's UTF-8, becomes `after`; `number` tells a function's equal ones apart."""

    module: str
    function: str
    operator: str
    before: str
    after: str
    start: int
    line: int
    number: int = 1

    @property
    def key(self) -> str:
        """What names it as long as its function and the text stay."""
        again = f" #{self.number}" if self.number > 1 else ""
        before, after = (" ".join(text.split()) for text in (self.before, self.after))
        return f"{self.module}::{self.function}::{self.operator}::{before} → {after}{again}"

    def applied(self, source: str) -> str:
        """The module with the change."""
        data, before = source.encode(), self.before.encode()
        assert data[self.start : self.start + len(before)] == before, "another source than the one it was made of"
        return (data[: self.start] + self.after.encode() + data[self.start + len(before) :]).decode()


def mutants(module: str, source: str) -> list[Mutant]:
    """All of a module, in the order of its text; each parses, and differs from the source."""
    walker = _Walker(module, source)
    walker.block(ast.parse(source).body)
    seen: Counter[str] = Counter()
    found: list[Mutant] = []
    for mutant in walker.found:
        seen[mutant.key] += 1
        found.append(replace(mutant, number=seen[mutant.key]))
    return found


class _Walker:
    def __init__(self, module: str, source: str) -> None:
        self.found: list[Mutant] = []
        self._module = module
        self._source = source
        self._offsets = [0]
        for line in source.encode().splitlines(keepends=True):
            self._offsets.append(self._offsets[-1] + len(line))
        self._function = MODULE

    def block(self, body: list[ast.stmt], path: tuple[str, ...] = ()) -> None:
        """The functions of a module or of a class at `path`, and the module's constants."""
        for node in body:
            if isinstance(node, Function):
                self._function = ".".join((*path, node.name))
                for statement in node.body:
                    self._statement(statement)
            elif isinstance(node, ast.ClassDef):
                self.block(node.body, (*path, node.name))
            elif not path and (value := _constant(node)):
                self._function = MODULE
                self._expression(value)

    def _add(self, operator: str, node: ast.stmt | ast.expr, after: str) -> None:
        assert node.end_lineno is not None and node.end_col_offset is not None
        start = self._offsets[node.lineno - 1] + node.col_offset
        end = self._offsets[node.end_lineno - 1] + node.end_col_offset
        before = self._source.encode()[start:end].decode()
        mutant = Mutant(
            module=self._module,
            function=self._function,
            operator=operator,
            before=before,
            after=after,
            start=start,
            line=node.lineno,
        )
        if after != before:
            self.found.append(mutant)

    def _changed(self, operator: str, node: Node, change: Callable[[Node], None]) -> None:
        """The expression with `change` made to a copy of it."""
        changed = copy.deepcopy(node)
        change(changed)
        assert isinstance(node, ast.expr)
        self._add(operator, node, f"({ast.unparse(changed)})")

    # Statements

    def _statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Assert | ast.Import | ast.ImportFrom | ast.ClassDef) or _is_text(node) or _logs(node):
            return
        if _can_go(node):
            self._add("drop", node, "pass")
        if isinstance(node, ast.Raise):
            return
        if isinstance(node, ast.If | ast.While):
            self._negate(node.test)
        self._children(node)

    def _negate(self, test: ast.expr) -> None:
        """Unless another operator does."""
        match test:
            case ast.UnaryOp(op=ast.Not()):
                return
            case ast.Compare(ops=[operator]) if not isinstance(operator, tuple(BOUNDARIES)):
                return
        self._add("condition", test, f"(not ({ast.unparse(test)}))")

    def _children(self, node: ast.AST) -> None:
        if isinstance(node, ast.comprehension):
            for test in node.ifs:
                self._negate(test)
        for name, value in ast.iter_fields(node):
            if name in SKIPPED or (name == "args" and isinstance(node, Function | ast.Lambda)):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.keyword) and child.arg == "strict":
                    continue
                if isinstance(child, ast.stmt):
                    self._statement(child)
                elif isinstance(child, ast.expr):
                    self._expression(child)
                elif isinstance(child, ast.AST):
                    self._children(child)

    # Expressions

    def _expression(self, node: ast.expr) -> None:
        match node:
            case ast.JoinedStr():
                return  # its parts have no place of their own before Python 3.12
            case ast.Compare(ops=[operator]):
                for name, table in (("boundary", BOUNDARIES), ("comparison", COMPARISONS)):
                    if new := table.get(type(operator)):
                        self._changed(name, node, lambda found, new=new: found.ops.__setitem__(0, new()))
            case ast.BinOp(op=operator) if not (_is_text(node.left) or _is_text(node.right) or _is_list(node)):
                if new := ARITHMETIC.get(type(operator)):
                    self._changed("arithmetic", node, lambda found, new=new: setattr(found, "op", new()))
            case ast.BoolOp(op=operator):
                other = ast.Or if isinstance(operator, ast.And) else ast.And
                self._changed("logic", node, lambda found: setattr(found, "op", other()))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self._add("condition", node, f"({ast.unparse(operand)})")
            case ast.UnaryOp(op=ast.USub() | ast.Invert(), operand=operand):
                self._add("sign", node, f"({ast.unparse(operand)})")
            case ast.IfExp(test=test):
                self._negate(test)
            case ast.Constant(value=value) if isinstance(value, bool | int | float):
                self._add("constant", node, repr(_other(value)))
            case ast.Call():
                self._call(node)
            case ast.Subscript(slice=ast.Slice(lower=lower, upper=upper)):
                for bound in filter(None, (lower, upper)):
                    self._add("shift", bound, f"({ast.unparse(bound)}) + 1")
        self._children(node)

    def _call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if other := EXTREMES.get(name):
            self._changed("extreme", node, lambda found: _rename(found, other))
        if name in UNWRAPPED:
            inner = node.func.value if isinstance(node.func, ast.Attribute) else next(iter(node.args), None)
            if inner is not None and not (isinstance(inner, ast.Name) and inner.id in ("torch", "np", "copy")):
                self._add("unwrap", node, f"({ast.unparse(inner)})")
        if name == "range" and not any(isinstance(arg, ast.Starred) for arg in node.args):
            last = node.args[min(1, len(node.args) - 1)]
            self._add("shift", last, f"({ast.unparse(last)}) + 1")
        plain = len(node.args) > 1 and not any(isinstance(arg, ast.Starred | ast.Constant) for arg in node.args[:2])
        if plain and name not in SYMMETRIC and ast.unparse(node.args[0]) != ast.unparse(node.args[1]):
            self._changed("swap", node, lambda found: found.args.__setitem__(slice(2), found.args[1::-1]))


def _constant(node: ast.stmt) -> ast.expr | None:
    """What a module's constant is."""
    match node:
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)) if name.isupper():
            return node.value
    return None


def _is_text(node: ast.AST) -> bool:
    match node:
        case ast.JoinedStr() | ast.Constant(value=str() | bytes()) | ast.Expr(value=ast.Constant()):
            return True
        case ast.BinOp():
            return _is_text(node.left) or _is_text(node.right)
    return False


def _is_list(node: ast.BinOp) -> bool:
    """A sum of lists or tuples: no other operator is a slip that somebody would make."""
    return any(isinstance(side, ast.List | ast.Tuple | ast.ListComp) for side in (node.left, node.right))


def _logs(node: ast.stmt) -> bool:
    match node:
        case ast.Expr(value=ast.Call(func=ast.Attribute() as func)):
            return any(getattr(part, "attr", getattr(part, "id", "")) in LOGS for part in ast.walk(func))
    return False


def _can_go(node: ast.stmt) -> bool:
    match node:
        case ast.Raise() | ast.Continue() | ast.Break() | ast.Return(value=None) | ast.AugAssign():
            return True
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.Delete():
            return True
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            return True
    return False


def _rename(call: ast.Call, name: str) -> None:
    if isinstance(call.func, ast.Attribute):
        call.func.attr = name
    elif isinstance(call.func, ast.Name):
        call.func.id = name


def _other(value: bool | int | float) -> bool | int | float:
    if isinstance(value, bool):
        return not value
    return value + 1 if value == 0 or (isinstance(value, int) and value < 10) else value * 2
