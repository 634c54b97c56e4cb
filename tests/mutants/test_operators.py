"""The changes that are made, and those that are not."""

import ast

import pytest

from tests.mutants.operators import mutants


def _changes(body: str) -> set[str]:
    """Each operator's change to a function of this body."""
    return {mutant.key.removeprefix("m.py::f::") for mutant in mutants("m.py", f"def f():\n    {body}\n")}


@pytest.mark.parametrize(
    ("body", "changes"),
    [
        ("x = a < b", {"boundary::a < b → (a <= b)", "comparison::a < b → (a > b)"}),
        ("x = a is not b", {"comparison::a is not b → (a is b)"}),
        ("x = a in b", {"comparison::a in b → (a not in b)"}),
        ("x = a and b", {"logic::a and b → (a or b)"}),
        ("x = a - b", {"arithmetic::a - b → (a + b)"}),
        ("x = a / b", {"arithmetic::a / b → (a * b)"}),
        ("x = -a", {"sign::-a → (a)"}),
        ("x = 3", {"constant::3 → 4"}),
        ("x = 0x10", {"constant::0x10 → 32"}),
        ("x = 0.5", {"constant::0.5 → 1.0"}),
        ("x = True", {"constant::True → False"}),
        ("x = max(a, b)", {"extreme::max(a, b) → (min(a, b))"}),
        ("x = a.argmin()", {"extreme::a.argmin() → (a.argmax())"}),
        ("x = a[b:c]", {"shift::b → (b) + 1", "shift::c → (c) + 1"}),
        ("x = range(a)", {"shift::a → (a) + 1"}),
        ("x = g(a, b, c)", {"swap::g(a, b, c) → (g(b, a, c))"}),
        ("x = a.clamp(b)", {"unwrap::a.clamp(b) → (a)"}),
        ("x = sorted(a)", {"unwrap::sorted(a) → (a)"}),
        ("os.fsync(a)", {"drop::os.fsync(a) → pass"}),
        ("await a()", {"drop::await a() → pass"}),
        ("raise E(1 + 2)", {"drop::raise E(1 + 2) → pass"}),
        ("self.a = b", {"drop::self.a = b → pass"}),
        ("a += b", {"drop::a += b → pass"}),
        ("x = [a for a in b if a]", {"condition::a → (not (a))"}),
        ("x = a if b else c", {"condition::b → (not (b))"}),
        ("x = not a", {"condition::not a → (a)"}),
    ],
)
def test_what_is_changed(body: str, changes: set[str]):
    assert _changes(body) == changes


@pytest.mark.parametrize(
    "body",
    [
        '"""1 < 2"""',
        "assert a < b",
        'x = f"{a + b}"',
        'x = "a" + b',
        "x = [a] + b",
        "x: Literal[3]",
        "self._log.info(a, n=a + 1)",
        "x = zip(a, b, strict=True)",
        "x = isinstance(a, b)",
    ],
)
def test_what_is_not_changed(body: str):
    assert _changes(body) == set()


SOURCE = '''"""A module."""
SIZE = 7
size = 8


class C:
    def m(self, ü=1):
        # ü stands before what is changed, and is two bytes
        return "ü", (self.n - 1) * 2, (self.n - 1)
'''


def test_a_change_is_made_in_its_place_alone_and_parses():
    found = mutants("m.py", SOURCE)
    for mutant in found:
        changed = mutant.applied(SOURCE)
        ast.parse(changed)
        assert changed != SOURCE and changed.count("\n") == SOURCE.count("\n")
    [first] = [mutant for mutant in found if mutant.key == "m.py::C.m::arithmetic::self.n - 1 → (self.n + 1)"]
    assert first.applied(SOURCE) == SOURCE.replace("self.n - 1", "(self.n + 1)", 1)
    assert {mutant.function for mutant in found} == {"<module>", "C.m"}
    assert [mutant.key for mutant in found if mutant.function == "<module>"] == ["m.py::<module>::constant::7 → 8"]


def test_keys_tell_equal_changes_apart_and_outlive_lines_above():
    keys = [mutant.key for mutant in mutants("m.py", SOURCE)]
    assert len(keys) == len(set(keys)) and "m.py::C.m::arithmetic::self.n - 1 → (self.n + 1) #2" in keys
    assert keys == [mutant.key for mutant in mutants("m.py", "import os\n\n" + SOURCE)]
