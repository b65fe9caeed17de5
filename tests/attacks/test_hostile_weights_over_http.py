"""Weights that are not what they say they are, sent to both routes that take weights."""

import io
import json
import struct
import zipfile

import pytest
import torch

from tests.api.conftest import CONFIG, scratch_files

ROUTES = {
    "base": "/v1/bases/hostile",
    "checkpoint": "/v1/models/animals/tasks/hostile/checkpoint?class=a&class=b",
}
F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def pickled():
    """What torch.save makes: a zip with a pickle in it."""
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, buffer)
    return buffer.getvalue()


def old_pickle():
    """A pickle that would run a command if anyone read it."""
    return b"\x80\x04cos\nsystem\n(S'touch /tmp/owned'\ntR."


def safetensors(header, body=b"\0\0\0\0", size=None):
    """A file with this header, claiming `size` bytes for it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + body


def zip_bomb():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**22))
    return buffer.getvalue()


HOSTILE = {
    "a torch pickle": pickled(),
    "a bare pickle": old_pickle(),
    "a zip bomb": zip_bomb(),
    "nothing": b"",
    "seven bytes": b"1234567",
    "a header longer than the file": safetensors({"w": F32}, size=10**6),
    "a header longer than memory": safetensors({"w": F32}, size=2**63),
    "a header that is no JSON": safetensors(b"{" * 64),
    "a header that is a list": safetensors(b"[]"),
    "a deeply nested header": safetensors(b"[" * 200_000),
    "a header that is no UTF-8": safetensors(b'{"\xff": 1}'),
    "a tensor named twice": safetensors(b'{"w":%b,"w":%b}' % ((json.dumps(F32).encode(),) * 2)),
    "tensors that overlap": safetensors({"v": F32, "w": F32}),
    "a hole between tensors": safetensors({"w": F32 | {"data_offsets": [4, 8]}}, body=bytes(8)),
    "a tensor beyond the end": safetensors({"w": F32 | {"data_offsets": [0, 400], "shape": [100]}}),
    "a truncated body": safetensors({"w": F32 | {"data_offsets": [0, 8], "shape": [2]}}),
    "trailing bytes": safetensors({"w": F32}, body=bytes(99)),
    "a negative shape": safetensors({"w": F32 | {"shape": [-1]}}),
    "an overflowing shape": safetensors({"w": F32 | {"shape": [2**62, 2**62]}}),
    "an unknown dtype": safetensors({"w": F32 | {"dtype": "F8_E5M2"}}),
    "a dtype that is no text": safetensors({"w": F32 | {"dtype": {}}}),
    "offsets that are no numbers": safetensors({"w": F32 | {"data_offsets": ["0", "4"]}}),
    "a name as long as a book": safetensors({"w" * 10_000: F32}),
    "metadata that is no text": safetensors({"__metadata__": {"a": 1}, "w": F32}),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("idea", HOSTILE)
def test_hostile_weights_are_refused_with_a_remedy_and_nothing_is_kept(learned, route, idea):
    before = learned.get("/v1/stats").json()

    problem = learned.problem(
        "PUT", ROUTES[route], params={"config": CONFIG} if route == "base" else None, content=HOSTILE[idea]
    )

    assert (problem["status"], problem["type"]) == (422, "/problems/invalid-weights"), problem["detail"]
    assert len(problem["detail"]) < 2000
    assert scratch_files(learned) == []
    after = learned.get("/v1/stats").json()
    assert [after[name] for name in ("bases", "blobs", "jobs")] == [
        before[name] for name in ("bases", "blobs", "jobs")
    ]
