"""The forms an output may have: how rows become a part's bytes, and how parts become one file.

A part's bytes depend on its rows alone, and the file on its parts alone, so that a job that was killed ten
times leaves the bytes of one that was not.
"""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from bulk.errors import OutputError
from bulk.rows import COLUMNS, Row

COPY_BYTES = 1 << 20
NESTED = ("top_k", "experts", "error")
"""Columns that a csv file holds as JSON text."""

_PREDICTION = pa.struct([("label", pa.string()), ("probability", pa.float64())])
_SHARE = pa.struct(
    [("task", pa.string()), ("weight", pa.float64()), ("digest", pa.string()), ("similarity", pa.float64())]
)
_FAILURE = pa.struct([("reason", pa.string()), ("detail", pa.string())])
SCHEMA = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        ("label", pa.string()),
        ("probability", pa.float64()),
        pa.field("top_k", pa.list_(_PREDICTION), nullable=False),
        pa.field("experts", pa.list_(_SHARE), nullable=False),
        ("revision", pa.int64()),
        pa.field("model", pa.string(), nullable=False),
        ("error", _FAILURE),
    ]
)


class Format(Protocol):
    """One form of the output."""

    suffix: str

    def encode(self, rows: Sequence[Row]) -> bytes:
        """A part: the rows as bytes."""
        ...

    def join(self, parts: Iterable[Path], into: IO[bytes]) -> tuple[int, int]:
        """Write the parts as one file; tell (rows, rows with an error). Memory stays at one part."""
        ...


class JsonLines:
    """A JSON object a line."""

    suffix = ".jsonl"

    def encode(self, rows: Sequence[Row]) -> bytes:
        """A line a row."""
        return b"".join(f"{json.dumps(row.to_dict(), ensure_ascii=False)}\n".encode() for row in rows)

    def join(self, parts: Iterable[Path], into: IO[bytes]) -> tuple[int, int]:
        """The parts, end to end."""
        num_rows = num_failed = 0
        for part in parts:
            with part.open("rb") as file:
                for line in file:
                    num_rows += 1
                    num_failed += not line.endswith(b'"error": null}\n')
                    into.write(line)
        return num_rows, num_failed


class Csv:
    """Comma-separated values (RFC 4180) under a line of names; what is nested is JSON text in its cell."""

    suffix = ".csv"

    def encode(self, rows: Sequence[Row]) -> bytes:
        """The rows without the line of names."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        for row in rows:
            writer.writerow([_cell(name, value) for name, value in row.to_dict().items()])
        return text.getvalue().encode()

    def join(self, parts: Iterable[Path], into: IO[bytes]) -> tuple[int, int]:
        """The line of names, then the parts."""
        num_rows = num_failed = 0
        into.write(f"{','.join(COLUMNS)}\r\n".encode())
        for part in parts:
            with part.open(encoding="utf-8", newline="") as file:
                for cells in csv.reader(file):
                    num_rows += 1
                    num_failed += bool(cells[-1])
            with part.open("rb") as content:
                while chunk := content.read(COPY_BYTES):
                    into.write(chunk)
        return num_rows, num_failed


class Parquet:
    """Parquet, compressed with zstd; a row group a part."""

    suffix = ".parquet"

    def encode(self, rows: Sequence[Row]) -> bytes:
        """A Parquet file of the rows."""
        sink = io.BytesIO()
        table = pa.Table.from_pylist([row.to_dict() for row in rows], schema=SCHEMA)
        pq.write_table(table, sink, compression="zstd")
        return sink.getvalue()

    def join(self, parts: Iterable[Path], into: IO[bytes]) -> tuple[int, int]:
        """One Parquet file."""
        num_rows = num_failed = 0
        with pq.ParquetWriter(into, SCHEMA, compression="zstd") as writer:
            for part in parts:
                table = pq.ParquetFile(part).read()
                num_rows += table.num_rows
                num_failed += table.num_rows - table.column("error").null_count
                writer.write_table(table)
        return num_rows, num_failed


FORMATS: dict[str, Format] = {each.suffix: each for each in (Parquet(), Csv(), JsonLines())}


def format_of(path: Path) -> Format:
    """The form that the file's name asks for.

    Raises:
        OutputError: There is no such form.
    """
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise OutputError(
            f"{path.name} ends in no known form of output", remedy=f"end it in {', '.join(FORMATS)}"
        )
    return found


def _cell(name: str, value: Any) -> Any:
    if name in NESTED:
        return "" if value is None else json.dumps(value, ensure_ascii=False)
    return value
