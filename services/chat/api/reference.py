"""`/docs`: the description for programs as a page for people, one section an operation and one a schema.

It is made on the server and needs no script: nothing comes from elsewhere, and its policy allows its own style alone.
"""

import base64
import hashlib
from collections.abc import Iterator
from functools import cache
from html import escape
from typing import Any

from services.chat.api.openapi import document

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 0 auto; padding: 1rem; }
code { font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
section { border-top: 1px solid #8888; margin-top: 1.5rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; }
"""
_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@cache
def page() -> str:
    """The whole of it."""
    said = document()
    operations = [
        (path, method, operation) for path, methods in said["paths"].items() for method, operation in methods.items()
    ]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{escape(said['info']['title'])}: API</title><style>{STYLE}</style>",
        f"<h1>{escape(said['info']['title'])} {escape(said['info']['version'])}</h1>",
        f"<p>{escape(said['info']['description'])} For programs: <a href=openapi.json>openapi.json</a>.</p><ul>",
        *(
            f"<li><a href='#{escape(operation['operationId'])}'><code>{method.upper()} {escape(path)}</code></a></li>"
            for path, method, operation in operations
        ),
        "</ul>",
        *(part for path, method, operation in operations for part in _operation(path, method, operation)),
        *(part for name, schema in sorted(said["components"]["schemas"].items()) for part in _schema(name, schema)),
    ]
    return "\n".join(parts)


def _operation(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<section id='{escape(operation['operationId'])}'><h2><code>{method.upper()} {escape(path)}</code></h2>"
    yield f"<p>{escape(operation['summary'])}</p>"
    roles = [role for needed in operation.get("security", ()) for scopes in needed.values() for role in scopes]
    if roles:
        yield f"<p>Needs a key that may <code>{escape(', '.join(roles))}</code>.</p>"
    if "requestBody" in operation:
        yield f"<p>Body: {_contents(operation['requestBody']['content'])}</p>"
    rows = [(item["name"], _kind(item["schema"]), item["description"]) for item in operation.get("parameters", ())]
    yield _table("Parameter", rows)
    answers = [
        (status, _contents(answer["content"]), answer["description"])
        for status, answer in operation["responses"].items()
    ]
    yield _table("Status", answers) + "</section>"


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"<section id='schema-{escape(name)}'><h2>{escape(name)}</h2><p>{escape(schema.get('description', ''))}</p>"
    required = schema.get("required", ())
    rows = [
        (field, _kind(values) + (", required" if field in required else ""), values.get("description", ""))
        for field, values in schema.get("properties", {}).items()
    ]
    yield _table("Field", rows) + "</section>"


def _table(head: str, rows: list[tuple[str, str, str]]) -> str:
    """`rows`: a name, HTML, and what is said of it."""
    if not rows:
        return ""
    body = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{kind}</td><td>{escape(words)}</td></tr>"
        for name, kind, words in rows
    )
    return f"<table><tr><th>{head}</th><th>What</th><th>Meaning</th></tr>{body}</table>"


def _contents(content: dict[str, Any]) -> str:
    return ", ".join(f"<code>{escape(media)}</code> {_kind(said.get('schema', {}))}" for media, said in content.items())


def _kind(schema: dict[str, Any]) -> str:
    """A schema in a word or two, with a link where it has a section of its own."""
    match schema:
        case {"$ref": reference}:
            name = escape(reference.rpartition("/")[2])
            return f"<a href='#schema-{name}'>{name}</a>"
        case {"anyOf": kinds} | {"allOf": kinds} | {"oneOf": kinds}:
            return " or ".join(_kind(kind) for kind in kinds)
        case {"enum": values}:
            return "one of " + escape(", ".join(map(str, values)))
        case {"const": value}:
            return escape(str(value))
        case {"type": "array", "items": dict() as items}:
            return f"array of {_kind(items) or 'anything'}"
        case _:
            return escape(str(schema.get("type", "")))
