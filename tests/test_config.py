"""Settings come from a file and the environment, and a mistake in either is named."""

from pathlib import Path

import pytest

from rlhf_online.config import ChatSettings, RewardSettings, dump, load
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
        ('state_dir = "s"\n[engine]\nmodell = "x"', r"engine\.modell is no setting"),
        ('state_dir = "s"\nhttp_port = 99999', r"http_port: .*65535 \(got 99999\)"),
        ('state_dir = "s"\n[limits]\nmax_answers = 0', r"limits\.max_answers: .*greater than 0"),
        ("", r"state_dir is missing"),
        ("state_dir = ", r"chat\.toml"),
    ],
)
def test_a_mistake_names_the_field_and_the_value(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(ChatSettings, write(tmp_path / "chat.toml", text))


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
