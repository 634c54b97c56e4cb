"""Which mutants are tried, and by which tests."""

import ast
from pathlib import Path

from tests.mutants import selection
from tests.mutants.operators import Mutant

ROOT = Path(__file__).resolve().parents[2]


def _mutants(module: str, **functions: int) -> list[Mutant]:
    return [
        Mutant(module=module, function=name, operator="sign", before=f"-{n}", after=str(n), start=0, line=1)
        for name, count in functions.items()
        for n in range(count)
    ]


def test_rooms_and_their_functions_take_turns():
    found = _mutants("rlhf_online/gate/a.py", long=50, short=1) + _mutants("rlhf_online/training/votes/b.py", one=50)
    chosen = selection.sample(found, 4, 1)
    assert [selection.room_of(mutant.module) for mutant in chosen] == ["votes", "gate", "votes", "gate"]
    assert {mutant.function for mutant in chosen} == {"long", "short", "one"}
    assert selection.sample(found, 999, 1) != found and len(selection.sample(found, 999, 1)) == 101


def test_the_seed_decides():
    found = _mutants("rlhf_online/gate/a.py", f=30, g=30)
    one, again, other = (selection.sample(found, 10, seed) for seed in (1, 1, 2))
    assert one == again != other


def test_another_function_changes_the_choice_of_no_other():
    found = _mutants("rlhf_online/gate/a.py", f=9, g=9, h=9)
    before, after = (
        selection.sample(each, 99, 1) for each in (found, found + _mutants("rlhf_online/gate/b.py", new=9))
    )
    assert before == [mutant for mutant in after if mutant.function != "new"] != after


def test_every_room_has_mutants_and_none_is_in_two():
    for room in selection.ROOMS:
        found = selection.all_mutants(ROOT, [room])
        assert found and {selection.room_of(mutant.module) for mutant in found} == {room}
        for mutant in selection.sample(found, 10, 0):
            ast.parse(mutant.applied((ROOT / mutant.module).read_text()))


def test_the_nearest_tests_are_the_mirrors_the_packages_or_the_folders(tmp_path: Path):
    for name in ("tests/a/test_b.py", "tests/a/test_c.py", "tests/test_d.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def nearest(module: str, **named: list[str]) -> tuple[str, ...]:
        return selection.nearest(f"rlhf_online/{module}", tmp_path, {f"rlhf_online/{k}": v for k, v in named.items()})

    assert nearest("a/b.py") == ("tests/a/test_b.py",)
    assert nearest("a/c/x.py") == ("tests/a/test_c.py",)
    assert nearest("d.py") == ("tests/test_d.py",)
    assert nearest("a/x.py") == ("tests/a",)
    assert nearest("a/x.py", a=["tests/one", "tests/two"]) == ("tests/one", "tests/two")
    assert nearest("a/b.py", a=["tests/one"]) == ("tests/a/test_b.py", "tests/one"), "its own come first"
    assert nearest("a/b.py", a=["tests/one", "tests/a/test_b.py"]) == ("tests/a/test_b.py", "tests/one")
    narrow = {"rlhf_online/a": ["x"], "rlhf_online/a/x.py": ["y"]}
    assert selection.nearest("rlhf_online/a/x.py", tmp_path, narrow) == ("y",)


def test_the_map_names_what_is_there():
    for place, tests in selection.read_nearest(ROOT / "tests/mutants/nearest.toml").items():
        assert (ROOT / place).exists(), place
        assert tests and all((ROOT / path.partition("::")[0]).exists() for path in tests), place
