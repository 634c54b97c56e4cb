"""Files as streams of rows: what they may be written in, and what a broken row does to the others."""

import gzip
import json
from pathlib import Path

import pytest

from rlhf_online.data import files
from rlhf_online.errors import InvalidInput, RowRefused

ROWS = [{"a": 1}, {"b": 'é\n"x" [,]'}, {"c": {"d": [1, 2]}}]


def rows(path: Path, content: str | bytes, *, is_csv: bool = False) -> list[tuple[int, object]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    found = files.read_rows(path, is_csv=is_csv)
    return [(number, value.reason if isinstance(value, RowRefused) else value) for number, value in found]


LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


@pytest.mark.parametrize(
    "content",
    [
        LINES,
        LINES.replace("\n", "\r\n"),
        LINES.rstrip(),
        "\ufeff" + LINES,
        "\n  " + LINES,
        gzip.compress(LINES.encode()),
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2, ensure_ascii=False),
        gzip.compress(b"\xef\xbb\xbf" + json.dumps(ROWS).encode()),
    ],
    ids=["lines", "crlf", "no-last-newline", "bom", "blank-first", "gzip", "array", "indented", "array-gzip"],
)
def test_rows_are_the_same_however_the_file_is_written(tmp_path: Path, content: str | bytes):
    assert rows(tmp_path / "f", content) == [(1, ROWS[0]), (2, ROWS[1]), (3, ROWS[2])]


def test_a_line_that_cannot_be_read_is_refused_and_the_others_are_read(tmp_path: Path):
    content = b'{"a": 1}\n{"b": \n{"c": "\xff"}\n\n{"d": "\\ud800"}\n{"e": NaN}\n[1]\n{"f": 2}'
    assert rows(tmp_path / "f", content) == [
        (1, {"a": 1}), (2, "json"), (3, "encoding"), (5, "json"), (6, "json"), (7, [1]), (8, {"f": 2}),
    ]  # fmt: skip


def test_an_array_is_read_a_piece_at_a_time_and_until_it_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "_READ", 7)
    assert rows(tmp_path / "f", json.dumps(ROWS)) == [(1, ROWS[0]), (2, ROWS[1]), (3, ROWS[2])]
    assert rows(tmp_path / "f", '[{"a": 1}, {"b": 2') == [(1, {"a": 1}), (2, "json")]
    assert rows(tmp_path / "f", '[{"a": 1}, {b}, {"c": 3}]') == [(1, {"a": 1}), (2, "json")]


def test_a_line_beyond_the_limit_is_refused_and_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "MAX_ROW", 30)
    content = f'{{"a": 1}}\n{{"b": "{"x" * 100}"}}\n{{"c": 2}}\n'
    assert rows(tmp_path / "f", content) == [(1, {"a": 1}), (2, "large"), (3, {"c": 2})]


def test_csv_has_fields_with_commas_and_newlines_and_says_which_rows_are_none(tmp_path: Path):
    content = 'prompt, chosen\n"a, b","c\nd"\n\nonly\nx,é\n'.encode() + b"y,\xff\n"
    assert rows(tmp_path / "f", content, is_csv=True) == [
        (1, {"prompt": "a, b", "chosen": "c\nd"}), (2, "shape"), (3, {"prompt": "x", "chosen": "é"}), (4, "encoding"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a,a\n1,2\n", "each once"),
        (LINES.encode("utf-16"), "save it as UTF-8"),
        (gzip.compress(LINES.encode())[:-9], "cannot be read"),
    ],
    ids=["twice", "utf-16", "cut"],
)
def test_a_file_that_is_none_says_so(tmp_path: Path, content: str | bytes, told: str):
    with pytest.raises(InvalidInput, match=told):
        rows(tmp_path / "f", content, is_csv=True)


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(InvalidInput, match=r"absent\.jsonl cannot be read: No such file"):
        list(files.read_rows(tmp_path / "absent.jsonl", is_csv=False))
