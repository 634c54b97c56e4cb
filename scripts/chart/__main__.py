"""Write what follows from `values.Values` into helm/rlhf-online, or say whether it is there: see the package."""

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from scripts.chart.settings import SettingsOf, settings_schema
from scripts.chart.values import Values

CHART = Path(__file__).parents[2] / "helm" / "rlhf-online"
HEAD = "# Written by `python -m scripts.chart` from scripts/chart/values.py, which says what may be given.\n"
WIDTH = 118
BEGIN, END = "<!-- values -->\n", "<!-- /values -->\n"


def schema() -> str:
    """values.schema.json: draft-07, whose `format` Helm checks."""
    whole = settings_schema(Values, ())
    return (
        json.dumps({"$schema": "http://json-schema.org/draft-07/schema#", **whole}, indent=1, ensure_ascii=False) + "\n"
    )


def values() -> str:
    """values.yaml: every default, under its sentence."""
    return HEAD + "\n".join(_yaml(Values, "")) + "\n"


def readme(before: str) -> str:
    """The README with the table of values between its marks."""
    head, _, rest = before.partition(BEGIN)
    _, _, tail = rest.partition(END)
    lines = ["| value | default | |", "| --- | --- | --- |"]
    for name, field, default in _rows(Values, ""):
        shown = json.dumps(default, ensure_ascii=False)
        lines.append(f"| `{name}` | `{shown}` | {_cell(field.description or '')} |")
    lines += ["", *_settings()]
    return f"{head}{BEGIN}\n" + "\n".join(lines) + f"\n\n{END}{tail}"


def _settings() -> Iterator[str]:
    """A table for each map of settings."""
    for name, field, _ in _rows(Values, ""):
        for each in field.metadata:
            if isinstance(each, SettingsOf):
                yield from (f"### `{name}`", "", "| setting | default | |", "| --- | --- | --- |")
                for setting, table in _leaves(settings_schema(each.model, each.decided), ""):
                    default = f"`{json.dumps(table['default'], ensure_ascii=False)}`" if "default" in table else ""
                    yield f"| `{setting}` | {default} | {_cell(table.get('description', ''))} |"
                yield ""


def _leaves(table: dict[str, Any], before: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, each in table.get("properties", {}).items():
        if "properties" in each:
            yield from _leaves(each, f"{before}{name}.")
        else:
            yield f"{before}{name}", each


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _rows(kind: type[BaseModel], before: str) -> Iterator[tuple[str, FieldInfo, Any]]:
    for name, field in kind.model_fields.items():
        name = f"{before}{field.alias or name}"
        if isinstance(field.default, BaseModel):
            yield from (
                (each, inner, _of(field.default, each, name, value))
                for each, inner, value in _rows(type(field.default), f"{name}.")
            )
        else:
            yield name, field, _plain(field.default)


def _of(model: BaseModel, name: str, before: str, value: Any) -> Any:
    """The default of `name` in this very default of its table, `Image(repository=…)`."""
    found: Any = model
    for part in name[len(before) + 1 :].split("."):
        found = getattr(found, part)
    return _plain(found)


def _yaml(kind: type[BaseModel], indent: str, model: BaseModel | None = None) -> Iterator[str]:
    for name, field in kind.model_fields.items():
        default = field.default if model is None else getattr(model, name)
        if not indent:
            yield ""
        if isinstance(default, BaseModel):
            yield f"{indent}{field.alias or name}:"
            yield from _yaml(type(default), f"{indent}  ", default)
            continue
        for line in textwrap.wrap(field.description or "", WIDTH - len(indent) - 2):
            yield f"{indent}# {line}"
        text = yaml.safe_dump({field.alias or name: _plain(default)}, sort_keys=False, allow_unicode=True, width=WIDTH)
        yield from (f"{indent}{line}" for line in text.splitlines())


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def main() -> int:
    """Exit code: 1 if `--check` found a file that is not what it would be."""
    parser = argparse.ArgumentParser(prog="python -m scripts.chart", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 names files that differ")
    check = parser.parse_args().check
    guide = CHART / "README.md"
    files = {
        CHART / "values.yaml": re.sub(r"[ \t]+\n", "\n", values()),
        CHART / "values.schema.json": schema(),
        guide: readme(guide.read_text()),
    }
    differ = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    for path in differ:
        if check:
            print(f"{path} is not what scripts/chart/values.py says: run `python -m scripts.chart`", file=sys.stderr)
        else:
            path.write_text(files[path])
    return int(check and bool(differ))


if __name__ == "__main__":
    sys.exit(main())
