"""Settings come from a file and the environment, and a mistake in either is named."""

from pathlib import Path
from typing import ClassVar, Literal

import pytest
from pydantic import Field

from rlhf_online.config import ChatSettings, LimitSettings, Only, RewardSettings, Section, ServiceSettings, dump, load
from rlhf_online.config.given import Option
from rlhf_online.errors import ConfigError
from rlhf_online.training.settings import TrainerSettings
from services.standalone.settings import StandaloneSettings


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_what_is_dumped_loads_again(tmp_path: Path) -> None:
    values = {"state_dir": tmp_path, "chat_url": "http://a", "reward_address": "b:1", "model": "m", "min_votes": 7}
    settings = TrainerSettings(**values)
    dump(settings, tmp_path / "run" / "trainer.toml")
    assert load(TrainerSettings, tmp_path / "run" / "trainer.toml") == settings


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "chat.toml", 'state_dir = "s"\nhttp_port = 1\n[engine]\nmodel = "file"\nthreads = 3\n')
    monkeypatch.setenv("RLHF_CHAT__ENGINE__MODEL", "environment")
    settings = load(ChatSettings, file)
    assert (settings.engine.model, settings.engine.threads, settings.http_port) == ("environment", 3, 1)


def test_an_option_wins_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "chat.toml", 'state_dir = "s"\n[engine]\nmodel = "file"\n')
    monkeypatch.setenv("RLHF_CHAT__ENGINE__MODEL", "environment")
    monkeypatch.setenv("RLHF_CHAT__OBJECTIVES", '["helpful", "brief"]')
    settings = load(ChatSettings, file, ["engine.model=option", "host=[::1]"])
    assert (settings.engine.model, settings.objectives, settings.host) == ("option", ("helpful", "brief"), "[::1]")


def test_a_variable_that_is_no_setting_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHF_CHAT__HTTP_PROT", "1")
    with pytest.raises(ConfigError, match="http_prot is no setting"):
        load(ChatSettings, write(tmp_path / "chat.toml", 'state_dir = "s"'))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('state_dir = "s"\n[engine]\nmodell = "x"', r"engine\.modell is no setting: did you mean engine\.model\?"),
        ('state_dir = "s"\n[engine]\nzzz = "x"', r"engine\.zzz is no setting: check its spelling"),
        ('state_dir = "s"\nhttp_port = 99999', r"http_port: .*65535 \(got 99999\)"),
        ('state_dir = "s"\n[limits]\nmax_answers = 0', r"limits\.max_answers: .*greater than 0"),
        ("", r"state_dir is missing"),
        ("state_dir = ", r"chat\.toml"),
    ],
)
def test_a_mistake_names_the_field_and_the_value(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(ChatSettings, write(tmp_path / "chat.toml", text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[engine]\nurl = "http://a"',
            r"engine\.url .* while engine\.mode is 'managed': it needs 'external'",
        ),
        ('[engine]\nmode = "external"\nthreads = 2', r"engine\.threads .* engine\.mode is 'external': .*'managed'"),
        ("[engine]\nmax_lora_rank = 8", r"engine\.max_lora_rank .* engine\.tuning is 'full': it needs 'lora'"),
        ("[log.kafka]\npartitions = 3", r"log\.kafka .* log\.url is 'file:': it needs 'kafka:\*'"),
        (
            '[log]\nurl = "kafka://a:1"\n[log.kafka]\npassword_file = "p"',
            r"log\.kafka\.password_file .* log\.kafka\.mechanism is '': it needs 'PLAIN' or 'SCRAM-\*'",
        ),
    ],
)
def test_a_setting_without_effect_is_refused_with_the_one_that_it_needs(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(ChatSettings, write(tmp_path / "chat.toml", f'state_dir = "s"\n{text}'))


@pytest.mark.parametrize(
    "text",
    [
        '[engine]\nmode = "external"\nurl = "http://a"\nmax_model_len = 9',
        '[engine]\ntuning = "lora"\nmax_lora_rank = 8',
        '[log]\nurl = "kafka://a:1"\n[log.kafka]\nmechanism = "SCRAM-SHA-256"\nusername = "u"',
    ],
)
def test_a_setting_with_effect_is_taken(tmp_path: Path, text: str) -> None:
    load(ChatSettings, write(tmp_path / "chat.toml", f'state_dir = "s"\n{text}'))


def test_one_limit_that_is_set_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    text = 'state_dir = "s"\n[limits.person]\nrequests_per_minute = 10\n[limits.key]\nvotes_per_hour = 0'
    limits, default = load(ChatSettings, write(tmp_path / "chat.toml", text)).limits, LimitSettings()
    assert limits.person == default.person.model_copy(update={"requests_per_minute": 10})
    assert limits.key == default.key.model_copy(update={"votes_per_hour": 0})
    assert default.person.votes_per_hour > 0 and default.key.tokens_per_day > 0


class Fruit(Section):
    only_with: ClassVar = {"stone.size": Only("ripe", above=0.5)}
    moved: ClassVar = {"core": "stone", "stone.width": "stone.size"}

    ripe: float = 0.0
    stone: "Stone | Pips | None" = Field(default=None, discriminator="kind")
    seeds: "dict[str, Pips]" = Field(default_factory=dict)


class Stone(Section):
    kind: Literal["stone"]
    size: int = 1


class Pips(Section):
    kind: Literal["pips"]
    count: int = 5


class Basket(ServiceSettings):
    variables = "RLHF_BASKET__"
    fruit: Fruit = Fruit()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("core = 1", "fruit.core is no setting: it is fruit.stone"),
        ('[fruit.stone]\nkind = "stone"\nwidth = 1', "fruit.stone.width is no setting: it is fruit.stone.size"),
        ('[fruit.stone]\nkind = "pips"\ncont = 1', "fruit.stone.cont is no setting: did you mean fruit.stone.count?"),
        (
            '[fruit.seeds.fig]\nkind = "pips"\ncont = 1',
            "fruit.seeds.fig.cont is no setting: did you mean fruit.seeds.fig.count?",
        ),
        (
            'ripe = 0.25\n[fruit.stone]\nkind = "stone"\nsize = 3',
            "fruit.stone.size has no effect while fruit.ripe is 0.25: it needs above 0.5",
        ),
    ],
)
def test_moved_names_and_inner_tables_are_explained(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(Basket, write(tmp_path / "basket.toml", f'state_dir = "s"\n[fruit]\n{text}'))
    assert str(refused.value) == f"{tmp_path / 'basket.toml'}: {message}"


@pytest.mark.parametrize(
    ("text", "variables", "options", "message"),
    [
        ("http_port = 99999", {}, [], "chat.toml: http_port: Input should be less than or equal to 65535 (got 99999)"),
        ("http_port = 1", {"HTTP_PORT": "x"}, [], "RLHF_CHAT__HTTP_PORT: http_port: Input should be a valid integer"),
        ("http_port = 1", {"HTTP_PORT": "2"}, ["http_port=x"], "--set http_port: Input should be a valid integer"),
        ("", {}, [("--port", "http_port=-1")], "--port: http_port: Input should be greater than or equal to 0"),
        ("http_port = -1", {"GRPC_PORT": "2"}, ["host=a"], "chat.toml: http_port: "),
        ("", {"OBJECTIVES": '["a", "B"]'}, [], "RLHF_CHAT__OBJECTIVES: objectives.1: "),
        ("", {"ENGINE": "fast"}, [], "RLHF_CHAT__ENGINE: engine: "),
        ("", {"ENGINE__MODELL": "m"}, [], "RLHF_CHAT__ENGINE__MODELL: engine.modell is no setting: did you mean"),
        ("", {}, ["engine.modell=m"], "--set engine.modell is no setting: did you mean engine.model?"),
        ("", {"ENGINE__URL": "http://a"}, [], "RLHF_CHAT__ENGINE__URL: engine.url has no effect while engine.mode"),
        ("[log]\nurl = 'x:'", {}, [("--kafka", "log.url=kafka://a:1")], ""),
    ],
)
def test_a_mistake_names_the_place_of_the_value(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    variables: dict[str, str],
    options: list[Option],
    message: str,
) -> None:
    """Each place gives something; the message begins with the one whose value counts."""
    monkeypatch.chdir(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(f"RLHF_CHAT__{name}", value)
    file = write(Path("chat.toml"), f'state_dir = "s"\n{text}\n')
    if not message:
        load(ChatSettings, file, options)
        return
    with pytest.raises(ConfigError) as refused:
        load(ChatSettings, file, options)
    assert str(refused.value).startswith(message)


def test_each_of_several_mistakes_names_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHF_UP__CHAT__GRPC_PORT", "-1")
    file = write(tmp_path / "up.toml", 'model = "m"\nstate_dir = "s"\n')
    with pytest.raises(ConfigError) as refused:
        load(StandaloneSettings, file, [("--port", "chat.http_port=x"), "trainer.min_votes=0"])
    assert [line.partition(" Input")[0] for line in str(refused.value).splitlines()] == [
        "--set trainer.min_votes:",
        "--port: chat.http_port:",
        "RLHF_UP__CHAT__GRPC_PORT: chat.grpc_port:",
    ]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "chat.engine.max_lora_rank=4",
            "--set chat.engine.max_lora_rank is 4, less than trainer.policy.lora_rank, which is 8",
        ),
        ("chat.engine.model=m", "--set chat.engine.model is no setting: it is model"),
        ("chat.engine=3", "--set chat.engine: "),
        ("engine.threads=3", "--set engine.threads is no setting: it is chat.engine.threads"),
        ("trainer.policy.algorithm.beta=3", "--set trainer.policy.algorithm"),
    ],
)
def test_a_mistake_in_what_services_share_names_the_place(tmp_path: Path, option: str, message: str) -> None:
    text = 'model = "m"\nstate_dir = "s"\n[chat]\nhttp_port = 1\n[trainer.policy]\nlora_rank = 8\n'
    with pytest.raises(ConfigError) as refused:
        load(StandaloneSettings, write(tmp_path / "up.toml", text), [option, ("--grpc-port", "chat.grpc_port=2")])
    assert str(refused.value).startswith(message)


def test_what_nobody_gave_is_missing_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHF_CHAT__HOST", "::1")
    file = write(tmp_path / "chat.toml", "")
    with pytest.raises(ConfigError) as refused:
        load(ChatSettings, file)
    assert str(refused.value) == f"{file}: state_dir is missing and has no default"
    with pytest.raises(ConfigError) as refused:
        load(ChatSettings, None)
    assert str(refused.value) == "state_dir is missing and has no default"


@pytest.mark.parametrize("setting", ['kind = "etcd"', 'name = "a/b"', "duration_s = 0"])
def test_a_lease_that_cannot_be_is_refused(tmp_path: Path, setting: str) -> None:
    text = f'state_dir = "s"\nchat_url = "c"\nreward_address = "r"\nmodel = "m"\n[lease]\n{setting}\n'
    with pytest.raises(ConfigError, match=rf"lease\.{setting.split()[0]}: "):
        load(TrainerSettings, write(tmp_path / "trainer.toml", text))


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no settings file"):
        load(ChatSettings, tmp_path / "none.toml")


@pytest.mark.parametrize("kind", [ChatSettings, RewardSettings, TrainerSettings, StandaloneSettings])
def test_every_field_has_a_sentence(kind: type) -> None:
    def undocumented(model: type, path: str) -> list[str]:
        found = []
        for name, field in getattr(model, "model_fields", {}).items():
            if hasattr(field.annotation, "model_fields"):
                found += undocumented(field.annotation, f"{path}{name}.")
            elif not field.description:
                found.append(f"{path}{name}")
        return found

    assert undocumented(kind, "") == []


def test_variables_of_the_template_have_a_type_wherever_they_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a template the text "false" would be true."""
    file = write(tmp_path / "chat.toml", 'state_dir = "s"\n[engine.chat_template_kwargs]\ndepth = 2\nname = "ann"\n')
    monkeypatch.setenv("RLHF_CHAT__ENGINE__CHAT_TEMPLATE_KWARGS", '{"enable_thinking": true, "rest": {"a": [1.5]}}')
    settings = load(ChatSettings, file, ["engine.chat_template_kwargs.enable_thinking=false"])
    variables = {"depth": 2, "name": "ann", "enable_thinking": False, "rest": {"a": [1.5]}}
    assert settings.engine.chat_template_kwargs == variables
    dump(settings, tmp_path / "dumped.toml")
    monkeypatch.undo()
    assert load(ChatSettings, tmp_path / "dumped.toml").engine.chat_template_kwargs == variables


@pytest.mark.parametrize("text", ['{"a": null}', '{"a": {"b": [1, null]}}', "5"])
def test_variables_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    file = write(tmp_path / "chat.toml", 'state_dir = "s"\n')
    with pytest.raises(ConfigError, match=r"engine\.chat_template_kwargs"):
        load(ChatSettings, file, [f"engine.chat_template_kwargs={text}"])
