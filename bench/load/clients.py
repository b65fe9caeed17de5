"""The clients, in a process of their own: `python -m bench.load.clients`, their orders as JSON on stdin.

It imports the standard library alone but for the words that both sides share, so that it takes as little as
can be of the processor that it has in common with the service.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.load.plan import Request
from bench.serving.calls import Call

KEPT_BYTES = 2**16
"""Of a body, for its JSON; downloads are read and forgotten."""
MAX_EXAMPLES = 10
TELL_EVERY_S = 1.0
NO_ANSWER = "none"
WITHIN_S = 120.0
"""Who waits longer for a whole answer counts it as none."""


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    size_bytes: int
    kept: bytes


@dataclass
class Crowd:
    """All clients of one run.

    Attributes:
        host: Where the service listens.
        port: The same.
        requests: By kind, in turn.
        clients: How many there are of each kind.
        pause_s: By kind, on average.
        photographs: What a request's numbers mean.
        seconds: How long they go on.
        seed: Of pauses and first turns.
        numbered_from: What `{n}` begins with; names that an earlier crowd gave are taken.
    """

    host: str
    port: int
    requests: dict[str, list[Request]]
    clients: dict[str, int]
    pause_s: dict[str, float]
    photographs: Sequence[bytes]
    seconds: float
    seed: int
    numbered_from: int = 0
    latencies_s: dict[str, list[float]] = field(default_factory=dict)
    statuses: dict[str, Counter[str]] = field(default_factory=dict)
    routes: dict[str, Counter[str]] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    received_bytes: int = 0
    refused_without_retry_after: int = 0
    _asked: int = 0

    async def run(self) -> dict[str, Any]:
        """What they met with."""
        began = time.monotonic()
        self._ends = began + self.seconds
        kinds = [kind for kind, count in self.clients.items() for _ in range(count)]
        for kind in self.clients:
            self.latencies_s[kind], self.statuses[kind] = [], Counter()
        async with asyncio.TaskGroup() as group:
            ticking = group.create_task(self._tell(began))
            clients = [group.create_task(self._client(kind, place)) for place, kind in enumerate(kinds)]
            await asyncio.wait(clients)
            ticking.cancel()
        return {
            "latencies_s": self.latencies_s,
            "statuses": {kind: dict(counts) for kind, counts in self.statuses.items()},
            "routes": {route: dict(counts) for route, counts in self.routes.items()},
            "examples": self.examples,
            "received_bytes": self.received_bytes,
            "refused_without_retry_after": self.refused_without_retry_after,
            "elapsed_s": time.monotonic() - began,
        }

    async def _tell(self, began: float) -> None:
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            _say({"done_s": time.monotonic() - began})

    async def _client(self, kind: str, place: int) -> None:
        draw = random.Random(self.seed * 10_000 + place)  # noqa: S311 - no secret, the same pauses every time
        is_first = place == sum(list(self.clients.values())[: list(self.clients).index(kind)])
        turn = 0 if is_first else draw.randrange(len(self.requests[kind]))
        line: _Line | None = None
        await asyncio.sleep(draw.uniform(0, self.pause_s[kind]))
        while time.monotonic() < self._ends:
            request = self.requests[kind][turn % len(self.requests[kind])]
            turn += 1
            line = await self._ask(kind, request, line)
            if self.pause_s[kind]:
                await asyncio.sleep(draw.expovariate(1 / self.pause_s[kind]))
        if line is not None:
            await line.close()

    async def _ask(self, kind: str, request: Request, line: "_Line | None") -> "_Line | None":
        """Ask, and note the answer; the line, where it is of use for the next request."""
        self._asked += 1
        sent = time.monotonic()
        try:
            async with asyncio.timeout(WITHIN_S):
                if line is not None and line.reader.at_eof():
                    await line.close()  # the service closes what was idle for a while, as servers do
                    line = None
                line = line or await _Line.open(self.host, self.port)
                answer = await line.ask(self._encode(request, self.numbered_from + self._asked))
                self._note(kind, request, answer, seconds=time.monotonic() - sent)
                if request.then is not None and answer.status == 202:
                    job = json.loads(answer.kept)["job"]["id"]
                    follow, sent = Request(request.then, {"job": job}), time.monotonic()
                    answer = await line.ask(self._encode(follow, 0))
                    self._note(kind, follow, answer, seconds=time.monotonic() - sent)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            self._count(kind, request, NO_ANSWER)
            self._example(f"{request.method} {request.path}: {type(error).__name__} {error}")
            if line is not None:
                await line.close()
            return None
        return line

    def _note(self, kind: str, request: Request, answer: Answer, *, seconds: float) -> None:
        self.latencies_s[kind].append(seconds)
        self._count(kind, request, str(answer.status))
        self.received_bytes += answer.size_bytes
        if answer.status == 503 and "retry-after" not in answer.headers:
            self.refused_without_retry_after += 1
        if answer.status >= 400:
            told = answer.kept[:200].decode(errors="replace")
            self._example(f"{request.method} {request.path}: {answer.status} {told}")

    def _count(self, kind: str, request: Request, status: str) -> None:
        self.statuses[kind][status] += 1
        self.routes.setdefault(request.route, Counter())[status] += 1

    def _example(self, line: str) -> None:
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(line)

    def _encode(self, request: Request, number: int) -> bytes:
        host = f"{self.host}:{self.port}"
        if request.images:
            return Call(request.path, request.images).encode(self.photographs, host)
        body = b""
        if request.body is not None:
            body = json.dumps(request.body).replace("{n}", str(number)).encode()
        kind = "Content-Type: application/json\r\n" if body else ""
        head = (
            f"{request.method} {request.path} HTTP/1.1\r\nHost: {host}\r\n{kind}"
            f"Content-Length: {len(body)}\r\nConnection: keep-alive\r\n\r\n"
        )
        return head.encode() + body


@dataclass
class _Line:
    """A connection that stays open between requests."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, host: str, port: int) -> "_Line":
        return cls(*await asyncio.open_connection(host, port, limit=2**20))

    async def ask(self, request: bytes) -> Answer:
        self.writer.write(request)
        await self.writer.drain()
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:])
        }
        if headers.get("transfer-encoding") == "chunked":
            size, kept = await self._chunks()
        else:
            size, kept = await self._body(int(headers.get("content-length", 0)))
        return Answer(int(head[0].split()[1]), headers, size, kept)

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            return

    async def _body(self, size: int) -> tuple[int, bytes]:
        kept, left = b"", size
        while left:
            piece = await self.reader.read(min(left, 2**20))
            if not piece:
                raise asyncio.IncompleteReadError(kept, left)
            kept, left = kept + piece[: KEPT_BYTES - len(kept)], left - len(piece)
        return size, kept

    async def _chunks(self) -> tuple[int, bytes]:
        total, kept = 0, b""
        while size := int(await self.reader.readline(), 16):
            _, piece = await self._body(size)
            await self.reader.readexactly(2)
            total, kept = total + size, kept + piece[: KEPT_BYTES - len(kept)]
        await self.reader.readexactly(2)
        return total, kept


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read the orders, be the clients, and say what happened in the last line."""
    orders = json.loads(sys.stdin.readline())
    photographs = [path.read_bytes() for path in sorted(Path(orders.pop("photographs")).iterdir())]
    requests = {
        kind: [Request.from_dict(each) for each in listed] for kind, listed in orders.pop("requests").items()
    }
    _say(asyncio.run(Crowd(requests=requests, photographs=photographs, **orders).run()))


if __name__ == "__main__":
    main()
