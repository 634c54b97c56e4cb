"""What is installed, against what this release's own metadata asks for."""

from importlib import metadata

from packaging.requirements import Requirement

from rlhf_online.doctor.packages import compared, packages


def test_this_environment_is_as_the_release_asks() -> None:
    (found,) = packages(["chat", "reward", "trainer", "kafka", "object-store"], engine=True)
    assert found.severity == "ok"
    assert f"torch {metadata.version('torch')}" in found.what
    assert f"transformers {metadata.version('transformers')}" in found.what


def test_another_release_of_the_engine_is_named_with_the_one_that_is_needed() -> None:
    asked = [Requirement("torch>=999; extra == 'trainer'"), Requirement("transformers<5; extra == 'reward'")]
    (found,) = compared(asked, ["trainer"])
    assert found.severity == "refuse"
    assert found.what == f"torch {metadata.version('torch')} is installed, and torch>=999 is needed"
    assert found.todo == "pip install 'torch>=999'"


def test_a_package_that_is_not_there_is_named() -> None:
    (found,) = compared([Requirement("no-such-package>=1")], [])
    assert (found.severity, found.what) == ("refuse", "no-such-package is not installed")
