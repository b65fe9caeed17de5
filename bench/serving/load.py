"""The load generator, a process of its own: `python -m bench.serving.load`, its orders as JSON on stdin.

Closed loop: so many connections, each of which sends its next request as soon as the last is answered. It
imports the standard library alone, so that it takes as little as can be of the processor it shares with the
service.
"""

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from bench.serving.calls import Call

TELL_EVERY = 10
STDIN = 0
MAX_HEAD_BYTES = 2**16
MAX_BODY_BYTES = 2**26


@dataclass
class Load:
    """One run of the generator.

    Attributes:
        host: Where the service listens.
        port: The same.
        calls: What is sent, in turn, over and over where a time is given.
        photographs: What the calls' numbers mean.
        concurrency: Connections.
        warm_up_s: What is answered within it is not counted.
        seconds: How long it goes on after that; None sends every call once.
        answers: Where each answer is written down, a line each.
        allowed: Calls that may be sent so far; None is all of them.
    """

    host: str
    port: int
    calls: Sequence[Call]
    photographs: Sequence[bytes]
    concurrency: int
    warm_up_s: float = 0.0
    seconds: float | None = None
    answers: IO[str] | None = None
    allowed: int | None = None
    latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    images: int = 0
    _next: int = 0
    _done: int = 0
    _encoded: dict[int, bytes] = field(default_factory=dict)
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    def allow(self, count: int) -> None:
        """Let so many calls be sent in all."""
        self.allowed = count
        self._more.set()

    async def run(self) -> dict[str, Any]:
        """What happened."""
        if self.seconds is not None:
            for index in range(len(self.calls)):
                self._encoded[index] = self._encode(index)
        self._counts_from = time.monotonic() + self.warm_up_s
        self._ends = None if self.seconds is None else self._counts_from + self.seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(self.concurrency):
                group.create_task(self._caller())
        elapsed_s = time.monotonic() - self._counts_from
        return {
            "latencies_s": self.latencies_s,
            "statuses": dict(self.statuses),
            "images": self.images,
            "elapsed_s": elapsed_s,
        }

    async def _caller(self) -> None:
        reader, writer = await asyncio.open_connection(self.host, self.port, limit=2**20)
        try:
            while (index := self._take()) is not None:
                while self.allowed is not None and index >= self.allowed:
                    self._more.clear()
                    await self._more.wait()
                request = self._encoded.get(index) or self._encode(index)
                sent = time.monotonic()
                writer.write(request)
                await writer.drain()
                status, body = await _answer(reader)
                self._note(index, sent, status=status, body=body)
        finally:
            writer.close()

    def _take(self) -> int | None:
        if self._ends is None:
            taken = self._next if self._next < len(self.calls) else None
        else:
            taken = self._next % len(self.calls) if time.monotonic() < self._ends else None
        self._next += 1
        return taken

    def _note(self, index: int, sent: float, *, status: int, body: bytes) -> None:
        now = time.monotonic()
        self._done += 1
        if self._done % TELL_EVERY == 0:
            _say({"done": self._done})
        if self.answers is not None:
            line = {"call": index, "status": status, "sent": sent, "received": now, "body": _read(body)}
            self.answers.write(json.dumps(line) + "\n")
        if now >= self._counts_from:
            self.latencies_s.append(now - sent)
            self.statuses[str(status)] += 1
            self.images += len(self.calls[index].images) if status == 200 else 0

    def _encode(self, index: int) -> bytes:
        return self.calls[index].encode(self.photographs, f"{self.host}:{self.port}")


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    status, length = int(head[9:12]), 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
        elif name.lower() == b"transfer-encoding":
            return status, await _chunks(reader)
    return status, await reader.readexactly(length)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while True:
        size = int(await reader.readline(), 16)
        body += (await reader.readexactly(size + 2))[:-2]
        if size == 0:
            return body


async def _run(load: Load) -> dict[str, Any]:
    """Run the load, and hear on stdin meanwhile how many calls may be sent."""
    loop = asyncio.get_running_loop()

    def hear() -> None:
        said = os.read(STDIN, 2**16)
        if not said:
            loop.remove_reader(STDIN)
        for line in said.splitlines():
            load.allow(json.loads(line)["allowed"])

    loop.add_reader(STDIN, hear)
    return await load.run()


def _read(body: bytes) -> Any:
    """The JSON, or what stands in its place."""
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read the orders, send, and say what happened in the last line."""
    orders = json.loads(sys.stdin.readline())
    photographs = [path.read_bytes() for path in sorted(Path(orders["photographs"]).iterdir())]
    answers = Path(orders["answers"]).open("w") if orders["answers"] else None  # noqa: SIM115 - closed at exit
    load = Load(
        orders["host"],
        orders["port"],
        [Call.from_dict(call) for call in orders["calls"]],
        photographs,
        concurrency=orders["concurrency"],
        warm_up_s=orders["warm_up_s"],
        seconds=orders["seconds"],
        answers=answers,
        allowed=orders["allowed"],
    )
    found = asyncio.run(_run(load))
    if answers is not None:
        answers.close()
    _say(found)


if __name__ == "__main__":
    main()
