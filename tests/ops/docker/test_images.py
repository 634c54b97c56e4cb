"""Each image is built by its Dockerfile, and started as compose.yaml has it: root read-only, as nobody; and is well."""

import json
from collections.abc import Iterator
from functools import cache

import pytest

from rlhf_online.simulation.tiny_model import write_tiny_model
from tests.support import cyclonedx
from tests.support.images import Image, Machine, build, missing

pytestmark = [
    pytest.mark.ops,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(missing()), reason=missing() or "-"),
]

TARGETS = {"chat": "", "trainer": "", "reward": "", "engine": "cpu"}
CHAT_LIMIT_MB = 250
MODEL = {"max_model_len": "128", "max_num_seqs": "16", "kv_cache_gib": "0.5"}
"""Of the tiny model."""
ENVIRONMENT = {
    "chat": {
        "RLHF_OPERATOR_TOKEN": "the operator's token of this test",
        "RLHF_PERSON_SALT": "the salt of this test",
        "RLHF_KEYS": '{"keys": []}',
        "RLHF_CHAT__LOG__URL": "file:",
        "RLHF_CHAT__ENGINE__MAX_MODEL_LEN": MODEL["max_model_len"],
    },
    "engine": {f"RLHF_ENGINE__{name.upper()}": value for name, value in MODEL.items()},
    "reward": {},
    "trainer": {
        "RLHF_OPERATOR_TOKEN": "the operator's token of this test",
        "RLHF_TRAINER__LOG__URL": "file:/var/lib/rlhf-online/log",
        "RLHF_TRAINER__CHAT_URL": "http://127.0.0.1:8000",
        "RLHF_TRAINER__REWARD_ADDRESS": "127.0.0.1:8002",
    },
}


@cache
def image(name: str) -> Image:
    """Built when it is asked for first."""
    return build(name, TARGETS[name])


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("machine")
    write_tiny_model(folder / "model", weights_seed=1)
    for path in (folder, folder / "model", *(folder / "model").iterdir()):
        path.chmod(0o755)
    machine = Machine(folder, folder / "model")
    try:
        yield machine
    finally:
        machine.stop()


@pytest.mark.parametrize("name", TARGETS)
def test_an_image_says_what_it_is_runs_as_nobody_and_is_well(machine: Machine, name: str) -> None:
    config = image(name).config
    assert config["User"] == "10001:10001"
    assert config["Labels"]["org.opencontainers.image.title"] == f"rlhf-online-{name}"
    assert not any(word in variable for variable in config["Env"] for word in ("TOKEN", "SALT", "PASSWORD"))
    machine.start(name, image(name), ENVIRONMENT[name])
    machine.wait(name, image(name))


def test_together_they_serve(machine: Machine) -> None:
    """The trainer makes the first version, the chat service brings it into the engine, through the shared volumes."""
    assert set(TARGETS) <= machine.running, "the tests above start them"
    machine.wait("chat", image("chat"), "http://127.0.0.1:8000/readyz")


def test_the_chat_services_image_is_small() -> None:
    assert image("chat").megabytes <= CHAT_LIMIT_MB


def test_the_bill_of_materials_comes_out_of_the_build() -> None:
    document = json.loads(build("chat", "sbom").read("/chat.cdx.json"))
    cyclonedx.validate(document)
    names = {component["name"] for component in document["components"]}
    assert {"rlhf-online", "grpcio", "libc6", "python3"} <= names
    assert not names & {"torch", "binutils", "setuptools"}, "what only built it"
