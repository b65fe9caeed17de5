"""What a job leaves beside its output until it is done: FILE.parts with the job and its finished parts.

A part is there whole or not at all: it is written under a temporary name, flushed to disk and renamed. When
all are there they are joined into one file, which takes its place in one rename.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bulk.errors import OutputError, ResumeError
from bulk.formats import Format

JOB_NAME = "job.json"
LOCK_NAME = "lock"
DONE_NAME = "done.json"
JOINED_NAME = "joined"
TEMPORARY = ".writing-"


class PartsFolder:
    """The folder FILE.parts of an output FILE. One process at a time; `held` sees to it.

    Args:
        output: Where the joined rows go.
        form: How they are written.
        is_overwriting: Whether a file that is there may be replaced.
    """

    def __init__(self, output: Path, form: Format, *, is_overwriting: bool = False) -> None:
        self.output = output
        self._is_overwriting = is_overwriting
        self.folder = output.with_name(f"{output.name}.parts")
        self._form = form

    @contextmanager
    def held(self) -> Iterator[None]:
        """The folder, made if missing, and nobody else's while the context lasts; a kill lets go of it.

        Raises:
            OutputError: Another process works on this output, or the folder cannot be made.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            lock = (self.folder / LOCK_NAME).open("w")
        except OSError as error:
            raise OutputError(
                f"{self.folder} cannot be written: {error.strerror}", remedy="name another output"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise OutputError(
                    f"another process writes {self.output} now", remedy="wait for it, or stop it"
                ) from error
            self._discard_torn()
            try:
                yield
            finally:
                if self._is_empty():
                    self._remove()

    def job(self) -> dict[str, Any] | None:
        """The job that was begun here, if one was."""
        return _read_json(self.folder / JOB_NAME)

    def begin(self, job: dict[str, Any]) -> None:
        """Write down which job this is, before any part of it is there; parts of no known job go."""
        for path in self.folder.glob(f"*{self._form.suffix}"):
            path.unlink()
        self._write(JOB_NAME, _json(job))

    def outcome(self) -> dict[str, Any] | None:
        """What `join` was told to remember, if the parts were joined."""
        return _read_json(self.folder / DONE_NAME)

    def missing(self, num_parts: int) -> list[int]:
        """The numbers of the parts that are still to be made."""
        present = {path.name for path in self.folder.iterdir()}
        return [number for number in range(num_parts) if self._name(number) not in present]

    def put(self, number: int, content: bytes) -> None:
        """The part, there whole or not at all; one that is there already is replaced.

        Raises:
            OutputError: The disk is full or failing; the parts that are there stay.
        """
        self._write(self._name(number), content)

    def join(self, num_parts: int, tell: Callable[[int, int], dict[str, Any]]) -> dict[str, Any]:
        """Make one file of all parts; `tell` gets rows and failed rows and gives the outcome to remember.

        Killed at any moment and called again, the same file comes of it.
        """
        parts = (self.folder / self._name(number) for number in range(num_parts))
        told: list[tuple[int, int]] = []
        self._write(JOINED_NAME, lambda file: told.append(self._form.join(parts, file)))
        outcome = tell(*told[0])
        self._write(DONE_NAME, _json(outcome))
        self.finish()
        return outcome

    def refuse_taken_output(self) -> None:
        """OutputError when a file is there that may not be replaced."""
        if self.output.exists() and not self._is_overwriting:
            raise OutputError(
                f"{self.output} is there already",
                remedy="name another output, or replace it with --overwrite",
            )

    def finish(self) -> None:
        """Put the joined file in its place and remove the folder; goes on where a kill stopped it."""
        joined = self.folder / JOINED_NAME
        with _written(self.output):
            if joined.exists():
                self.refuse_taken_output()
                joined.replace(self.output)
                _flush_folder(self.output.parent)
            self._remove()

    def _remove(self) -> None:
        """The marker goes last: while it is there, everything else may be missing."""
        last = (DONE_NAME, LOCK_NAME)
        for path in self.folder.iterdir():
            if path.name not in last:
                path.unlink()
        for name in last:
            (self.folder / name).unlink(missing_ok=True)
        self.folder.rmdir()

    def _is_empty(self) -> bool:
        return self.folder.exists() and {path.name for path in self.folder.iterdir()} <= {LOCK_NAME}

    def _discard_torn(self) -> None:
        for path in self.folder.glob(f"{TEMPORARY}*"):
            path.unlink()

    def _name(self, number: int) -> str:
        return f"{number:08d}{self._form.suffix}"

    def _write(self, name: str, content: bytes | Callable[[IO[bytes]], object]) -> None:
        temporary = self.folder / f"{TEMPORARY}{name}"
        with _written(self.output):
            with temporary.open("wb") as file:
                if isinstance(content, bytes):
                    file.write(content)
                else:
                    content(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.folder / name)
            _flush_folder(self.folder)


@contextmanager
def _written(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{output} cannot be written: {error.strerror}",
            remedy="make room or mend the disk; the same command then goes on where it stopped",
        ) from error


def _json(values: dict[str, Any]) -> bytes:
    return json.dumps(values, indent=2, ensure_ascii=False).encode()


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ResumeError(
            f"{path} does not read ({error})", remedy=f"give the unfinished job up: rm -r {path.parent}"
        ) from error
    return values


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
