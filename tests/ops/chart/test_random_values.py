"""Values that nobody thought of: what the schema takes renders to objects of Kubernetes and to settings files that say
what was given; what it does not take is refused, with its path.

Each case is a run of Helm. The same values in each run; `pytest --hypothesis-seed=7` looks at others.
"""

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.ops.chart.test_objects import RELEASES, refused
from tests.support.chart import LEAST, Object, merged, refusal, rendered, template
from tests.support.chart_values import LEAVES, Path, nested, right, wrong

pytestmark = pytest.mark.ops
MANY = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
CHECKS = "templates/checks.yaml"
"""Where the chart itself says what one value must be to another."""


def at(table: Any, path: Path) -> Any:
    for name in path:
        table = table[name]
    return table


@st.composite
def chosen_values(draw: st.DrawFn) -> dict[Path, Any]:
    paths = draw(st.lists(st.sampled_from(sorted(LEAVES)), min_size=1, max_size=12, unique=True))
    return {path: draw(right(LEAVES[path], path[-1])) for path in paths}


def test_what_the_schema_takes_are_objects_of_kubernetes_and_settings_as_given() -> None:
    done: list[Object] = []

    @MANY
    @given(chosen_values())
    def run(chosen: dict[Path, Any]) -> None:
        result = template(merged(LEAST, *(nested(path, value) for path, value in chosen.items())))
        if result.returncode:
            assert CHECKS in result.stderr, result.stderr
            return
        objects = rendered(result.stdout)
        done.extend(objects)
        for path, value in chosen.items():
            runs = chosen.get((path[0], "enabled"), True)
            if runs and path[1:2] == ("settings",) and path[0] != "kafka" and path[-1] != "allowed_hosts":
                assert at(objects.settings(path[0]), path[2:]) == value

    run()
    assert len(done) > 100
    for release in RELEASES:
        assert refused(done, release) == []


@MANY
@given(st.data())
def test_what_the_schema_does_not_take_is_refused_with_its_path(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(LEAVES)))
    if data.draw(st.booleans(), label="an unknown name"):
        path, value = (*path[:-1], f"{path[-1]}x"), 1
        place = path[:-1]
    else:
        value, place = data.draw(wrong(LEAVES[path])), path
    assume(place != ("global",))
    said = refusal(merged(LEAST, nested(path, value)))
    assert "/".join(place) in said, (path, value, said)
