"""The commands and their options."""

import os
import sys
from typing import Annotated

import typer

from rlhf_online.cli import (
    audiences,
    backup,
    canary,
    chat,
    critic,
    data,
    doctor,
    feedback,
    gap,
    judge,
    keys,
    learning,
    people,
    questions,
    retrain,
    rules,
    sft,
    size,
    topics,
    trace,
    train,
    up,
    versions,
    versions_store,
    watch,
    weights,
)
from rlhf_online.cli.client import KEY_VARIABLE

app = typer.Typer(
    help="A chat service that learns, live, from the people who use it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def with_key(
    key: Annotated[str, typer.Option(envvar=KEY_VARIABLE, help="API key, where the chat service has keys.")] = "",
) -> None:
    if key:  # as an option it says the same to the command, which reads the variable
        os.environ[KEY_VARIABLE] = key


app.command("up")(up.up)
app.command("chat")(chat.chat)
app.command("doctor")(doctor.doctor)
app.command("size")(size.size)
app.command("sft", no_args_is_help=True)(sft.sft)
app.command("train", no_args_is_help=True)(train.train)
app.command("retrain", no_args_is_help=True)(retrain.retrain)
app.add_typer(feedback.app, name="feedback")
app.add_typer(keys.app, name="keys")
app.add_typer(versions_store.app, name="versions")
app.add_typer(learning.app, name="learning")
app.add_typer(canary.app, name="canary")
app.command("reward-weights")(weights.reward_weights)
app.add_typer(audiences.app, name="audiences")
app.add_typer(rules.app, name="rules")
app.add_typer(judge.app, name="judge")
app.command("ask", no_args_is_help=True)(questions.ask)
app.add_typer(critic.app, name="critic")
app.command("topics", no_args_is_help=True)(topics.topics)
app.add_typer(gap.app, name="gap")
app.add_typer(backup.app, name="backup")
app.add_typer(data.app, name="data")
app.add_typer(people.app, name="people")
app.command("trace", no_args_is_help=True)(trace.trace)
versions.app.command("trace", no_args_is_help=True)(trace.trace)
app.command("status")(versions.status)
app.command("watch")(watch.watch)


@app.command(
    "demo",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def demo(context: typer.Context) -> None:
    """The whole circle in a tiny world whose true reward is known; `demo --help` lists its options."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "rlhf_online.simulation.demo", *context.args])
