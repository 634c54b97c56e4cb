"""The report for people's eyes: curves as a PNG, and one HTML file that holds them and answers before and after."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_online.simulation import report
from rlhf_online.simulation.traffic import Sample

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; } td, th { padding: .25rem .6rem; text-align: left; }
tr:nth-child(even) { background: #f4f6f8; } th { border-bottom: 2px solid #888; } img { max-width: 100%; }
pre { background: #f4f6f8; padding: 1rem; overflow-x: auto; } .good { color: #0a7d32; } .bad { color: #b3261e; }
"""


def draw(values: Mapping[str, Any], history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Four curves of a run: true reward and KL by version, the reward model's accuracy by cycle, the votes' fate."""
    # Imported here: the report's numbers need no matplotlib.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, 2)
    _reward_curve(axes[0][0], values)
    versions = [item for item in values["versions"] if item["state"] in ("live", "retired")]
    axes[0][1].plot([_number(item) for item in versions], [item["kl"] for item in versions], "o-", color="tab:orange")
    _label(axes[0][1], "KL to the first version", "policy version", "nats an answer")
    scored = [(n, item["reward_accuracy"]) for n, item in enumerate(history) if item.get("reward_accuracy") is not None]
    axes[1][0].plot([n for n, _ in scored], [accuracy for _, accuracy in scored], "o-", color="tab:green")
    _label(axes[1][0], "Reward model on held-out votes", "training cycle", "share ordered rightly")
    fate = [(name, count) for name, count in values["events"].items() if name != "accepted"]
    bars = axes[1][1].bar([name.replace("_", "-") for name, _ in fate], [count for _, count in fate])
    axes[1][1].bar_label(bars)
    _label(axes[1][1], f"What became of {values['events']['accepted']} acknowledged votes", "", "votes")
    figure.suptitle(f"Online RLHF in the tiny world · seed {values['seed']} · votes: {values['votes']}")
    figure.savefig(path, dpi=110)


def _reward_curve(axes: Any, values: Mapping[str, Any]) -> None:
    versions = [item for item in values["versions"] if item["n"] >= 20]
    axes.errorbar(
        [_number(item) for item in versions],
        [item["true_reward"] for item in versions],
        yerr=[item["stderr"] for item in versions],
        fmt="o-",
        capsize=3,
        label="answers that people got",
    )
    reward = values["true_reward"]
    for name, style in (("first", ":"), ("last", "--")):
        axes.axhline(reward[name], linestyle=style, color="tab:red", label=f"held-out, {name}: {reward[name]:.2f}")
    axes.legend(loc="lower right")
    _label(axes, "True reward", "policy version", "mean ± standard error")


def _label(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)


def _number(version: Mapping[str, Any]) -> int:
    return int(version["id"].rpartition("-")[2])


def write_html(
    values: Mapping[str, Any], picture: Path, before: Sequence[Sample], after: Sequence[Sample], path: Path
) -> None:
    """One file without references: the summary, the picture, sample answers to the same held-out prompts, versions."""
    image = base64.b64encode(picture.read_bytes()).decode()
    answers = "".join(
        f"<tr><td>{html.escape(a.prompt)}</td>{_answer(a)}{_answer(b)}</tr>" for a, b in zip(before, after, strict=True)
    )
    versions = "".join(
        f"<tr><td>{item['id']}</td><td>{item['state']}</td><td>{_cell(item['true_reward'])}</td><td>{item['n']}</td>"
        f"<td>{item['kl']:.2f}</td><td>{html.escape(_gate(item))}</td></tr>"
        for item in values["versions"]
    )
    path.write_text(
        f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Online RLHF demo</title><style>{STYLE}</style>
<h1>Online RLHF in the tiny world</h1>
<pre>{html.escape(report.summary(values, chaos=bool(values["restarts"])))}</pre>
<img alt="Curves of the run" src="data:image/png;base64,{image}">
<h2>The same held-out prompts, before and after</h2>
<table><tr><th>prompt</th><th>first version</th><th></th><th>last version</th><th></th></tr>{answers}</table>
<h2>Versions</h2>
<table><tr><th>version</th><th>state</th><th>true reward of its answers</th><th>n</th><th>KL</th><th>gate</th></tr>
{versions}</table></html>
"""
    )


def _answer(sample: Sample) -> str:
    kind = "good" if sample.reward >= 0.9 else "bad" if sample.reward < 0 else ""
    return f'<td class="{kind}">{html.escape(sample.answer) or "–"}</td><td>{sample.reward:+.2f}</td>'


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"


def _gate(item: Mapping[str, Any]) -> str:
    facts = [
        f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}"
        for name, value in item["gate"].items()
        if isinstance(value, int | float | str)
    ]
    return item["reason"] or ", ".join(facts)
