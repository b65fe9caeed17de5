"""The project's own files, read once: Python sources with their syntax trees, and the texts people read."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    "store",
    "catalog",
    "imagesets",
    "vlm",
    "serving",
    "bulk",
    "api",
    "worker",
    "bench",
    "cli",
    "migrations",
)
TEXT_SUFFIXES = {".py", ".md", ".toml", ".lock", ".yml", ".json", ".html", ".css", ".js", ".txt", ".mako"}
TEXTS_WITHOUT_SUFFIX = {"Makefile", "LICENSE", ".gitignore", "run"}
LARGEST_TEXT_BYTES = 1_000_000


@dataclass(frozen=True)
class Source:
    """One Python file: its path from the top of the project, its text and its syntax tree."""

    path: str
    text: str
    tree: ast.Module

    @property
    def folder(self) -> str:
        return self.path.split("/", 1)[0]

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        return (
            node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        )

    def calls(self) -> Iterator[ast.Call]:
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.Call))

    def imported_modules(self) -> Iterator[tuple[int, str]]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.lineno, node.module
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def parse(text: str, path: str = "store/example.py") -> Source:
    return Source(path, text, ast.parse(text))


@cache
def sources() -> tuple[Source, ...]:
    """Every Python file of the rooms, the tests and the examples."""
    folders = (ROOT / name for name in (*ROOMS, "tests", "examples"))
    files = sorted(path for folder in folders for path in folder.rglob("*.py"))
    return tuple(parse(path.read_text(), path.relative_to(ROOT).as_posix()) for path in files)


@cache
def text_files() -> tuple[tuple[str, str], ...]:
    """Path and text of the files of the project that people write or read."""
    top = (path for path in ROOT.iterdir() if path.is_file())
    below = (
        path
        for name in (*ROOMS, "tests", "examples", "docs", ".ci")
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    kept = (
        path
        for path in (*top, *below)
        if (path.suffix in TEXT_SUFFIXES or path.name in TEXTS_WITHOUT_SUFFIX)
        and path.stat().st_size < LARGEST_TEXT_BYTES
    )
    return tuple(
        (path.relative_to(ROOT).as_posix(), path.read_text(errors="replace")) for path in sorted(kept)
    )
