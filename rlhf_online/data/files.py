"""A file's rows, read as a stream: JSONL, a JSON array, CSV, each of them plain or compressed with gzip.

A row that cannot be read comes as a RowRefused in its place, and those after it are read. Memory holds one row.
"""

import codecs
import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias, cast

import orjson

from rlhf_online.errors import InvalidInput, RowRefused

MAX_ROW = 64 << 20
"""Largest row, bytes."""
_READ = 1 << 20

Found = Any | RowRefused
_Stream: TypeAlias = "io.BufferedReader[io.RawIOBase]"


def read_rows(path: Path, *, is_csv: bool) -> Iterator[tuple[int, Found]]:
    """(number from 1, values) of each row; empty lines are passed over. Raises InvalidInput for a file that cannot be
    read, also one that cannot be read on."""
    try:
        with _opened(path) as file:
            if file.peek(4)[:4] == b"PAR1":
                yield from _parquet(path)
            elif is_csv:
                yield from _csv(file)
            elif file.peek(1)[:1] == b"[":
                yield from _array(file)
            else:
                yield from _lines(file)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


@contextmanager
def _opened(path: Path) -> Iterator[_Stream]:
    """The file without compression, byte order mark and white space before its first row."""
    with path.open("rb") as raw:
        packed = raw.peek(2)[:2] == b"\x1f\x8b"
        with io.BufferedReader(cast(io.RawIOBase, gzip.open(raw) if packed else raw), _READ) as file:
            begin = file.peek(4)[:4]
            if begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise InvalidInput(f"{path} is UTF-16: save it as UTF-8")
            if begin.startswith(codecs.BOM_UTF8):
                file.read(3)
            while (first := file.peek(1)[:1]) and first in b" \t\r\n":
                file.read(1)
            yield file


def _lines(file: _Stream) -> Iterator[tuple[int, Found]]:
    for number, line in enumerate(iter(lambda: file.readline(MAX_ROW), b""), 1):
        if len(line) == MAX_ROW:
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_ROW)
            yield number, RowRefused("large", f"a line of more than {MAX_ROW >> 20} MiB")
        elif not line.isspace():
            yield number, _parsed(line)


def _parsed(line: bytes) -> Found:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        try:
            line.decode()
        except UnicodeDecodeError:
            return RowRefused("encoding", "not UTF-8")
        return RowRefused("json", f"not JSON: {str(error).partition(':')[0]}")


def _array(file: _Stream) -> Iterator[tuple[int, Found]]:
    """The elements of an array. Behind one that is no JSON nothing can be told apart any more."""
    decoder, number = json.JSONDecoder(), 0
    characters = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    file.read(1)
    buffer, at, wanted = "", 0, _READ
    while True:
        while at < len(buffer) and buffer[at] in " \t\r\n,":
            at += 1
        if buffer[at : at + 1] == "]":
            return
        try:
            values, at = decoder.raw_decode(buffer, at)
        except (ValueError, RecursionError) as error:
            more = file.read(wanted) if len(buffer) - at < MAX_ROW else b""
            if not more:
                yield number + 1, RowRefused("json", f"the array cannot be read on here: {str(error)[:80]}")
                return
            buffer, at, wanted = buffer[at:] + characters.decode(more), 0, wanted * 2
        else:
            number, wanted = number + 1, _READ
            yield number, values


def _parquet(path: Path) -> Iterator[tuple[int, Found]]:
    """Columns that are null are left out: each row has those of its kind."""
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise InvalidInput(f"{path} is Parquet, and pyarrow is not installed: install rlhf-online[parquet]") from error
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(1000):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {name: value for name, value in row.items() if value is not None}
    except arrow.ArrowException as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from error


def _csv(file: _Stream) -> Iterator[tuple[int, Found]]:
    """A dictionary a row, by the names of the first."""
    csv.field_size_limit(min(MAX_ROW, sys.maxsize))
    reader = csv.reader((line.decode(errors="surrogateescape") for line in file), strict=True)
    names = [name.strip() for name in next(reader, [])]
    if len(set(names)) < len(names):
        raise InvalidInput(f"the first row must name the columns, each once; it has {', '.join(names)}")
    number = 0
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            number += 1
            yield number, RowRefused("shape", f"not CSV: {error}")
            continue
        if not any(row):
            continue
        number += 1
        if len(row) != len(names):
            yield number, RowRefused("shape", f"{len(row)} columns, and the first row names {len(names)}")
        elif any(not each.isascii() and _escaped(each) for each in row):
            yield number, RowRefused("encoding", "not UTF-8")
        else:
            yield number, dict(zip(names, row, strict=True))


def _escaped(text: str) -> bool:
    """Whether it holds bytes that were no UTF-8."""
    return any("\udc80" <= character <= "\udcff" for character in text)
