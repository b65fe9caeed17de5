import json
import pickle
import struct

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from store.errors import InvalidUploadError, StoreError
from store.safefile import SafeFile, header_bytes, read_header, write_safetensors

TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).view(2, 3),
    "b": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "c": torch.tensor(7),
    "d": torch.tensor([True, False, True]),
    "e": torch.empty(0, 4),
    "f": torch.randn(3, dtype=torch.float16, generator=torch.Generator().manual_seed(0)),
}


def crafted(tmp_path, header, data=b"", *, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = tmp_path / "crafted.safetensors"
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_what_we_write_the_safetensors_library_reads_and_the_other_way_round(tmp_path):
    write_safetensors(tmp_path / "ours", TENSORS, {"k": "v"})
    theirs = safetensors.torch.load_file(tmp_path / "ours")
    safetensors.torch.save_file(TENSORS, tmp_path / "theirs")
    ours = SafeFile(tmp_path / "theirs").tensors()
    for name, tensor in TENSORS.items():
        for other in (theirs[name], ours[name]):
            assert other.dtype == tensor.dtype
            assert torch.equal(other, tensor)


def test_a_tensor_outlives_the_file_it_was_read_from(tmp_path):
    write_safetensors(tmp_path / "x", {"a": torch.ones(100_000)})
    tensor = SafeFile(tmp_path / "x").tensor("a")
    (tmp_path / "x").unlink()
    assert tensor.sum() == 100_000


def test_tensors_at_odd_offsets_are_read_right(tmp_path):
    data = b"\x01" + torch.tensor([1.25, 2.5]).numpy().tobytes()
    header = {"flag": entry("BOOL", (1,), (0, 1)), "x": entry("F32", (2,), (1, 9))}
    file = SafeFile(crafted(tmp_path, header, data))
    assert file.tensor("x").tolist() == [1.25, 2.5]


@pytest.mark.parametrize(
    ("header", "data", "says"),
    [
        ({"x": entry(offsets=(0, 8))}, b"\0" * 8, "needs 4 bytes"),
        ({"x": entry(offsets=(0, 4))}, b"", "truncated"),
        ({"x": entry(offsets=(4, 0), shape=(1,))}, b"\0" * 4, "needs 4 bytes"),
        ({"x": entry(), "y": entry()}, b"\0" * 4, "overlap or leave a hole"),
        ({"x": entry(offsets=(4, 8))}, b"\0" * 8, "overlap or leave a hole"),
        ({"x": entry()}, b"\0" * 9, "belong to none"),
        ({"x": entry(dtype="F8_E4M3")}, b"\0" * 4, "dtype"),
        ({"x": entry(dtype=["F32"])}, b"\0" * 4, "dtype"),
        ({"x": entry(shape=(-1,))}, b"\0" * 4, "whole numbers"),
        ({"x": entry(shape=(1.0,))}, b"\0" * 4, "whole numbers"),
        ({"x": entry(shape=(True,))}, b"\0" * 4, "whole numbers"),
        ({"x": entry(shape=(2**62, 2**62))}, b"\0" * 4, "needs"),
        ({"x": {"dtype": "F32"}}, b"", "exactly dtype, shape and data_offsets"),
        ({"x": 3}, b"", "exactly dtype, shape and data_offsets"),
        ({"x" * 600: entry()}, b"\0" * 4, "600 characters"),
        ({"__metadata__": {"a": 1}}, b"", "must map names to strings"),
        ([1, 2], b"", "not a JSON object"),
        (b"{nonsense", b"", "not JSON"),
        (b"\xff\xfe{}", b"", "not JSON"),
        (b'{"x": ' + b"[" * 100_000, b"", "not JSON"),
        (b'{"a": {}, "a": {}}', b"", "named twice"),
        (
            b'{"x": {"dtype": "F32", "shape": [' + b"9" * 5000 + b'], "data_offsets": [0, 4]}}',
            b"\0" * 4,
            "not JSON",
        ),
    ],
)
def test_a_header_that_does_not_describe_its_file_is_refused(tmp_path, header, data, says):
    with pytest.raises(InvalidUploadError, match=says):
        read_header(crafted(tmp_path, header, data))


@pytest.mark.parametrize("length", [10, 2**63, 2**64 - 1, 10**9])
def test_a_header_length_past_the_end_is_refused_without_reading_it(tmp_path, length):
    with pytest.raises(InvalidUploadError, match="header claims"):
        read_header(crafted(tmp_path, b"{}", length=length))


@pytest.mark.parametrize("content", [b"", b"\x01", b"1234567"])
def test_a_file_too_short_for_a_header_is_refused(tmp_path, content):
    (tmp_path / "short").write_bytes(content)
    with pytest.raises(InvalidUploadError, match="too short"):
        read_header(tmp_path / "short")


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_is_refused_with_the_command_that_converts_it(tmp_path, protocol):
    (tmp_path / "pickle").write_bytes(pickle.dumps({"a": 1}, protocol=protocol))
    with pytest.raises(InvalidUploadError, match=r"safetensors\.torch\.save_file"):
        read_header(tmp_path / "pickle")


@pytest.mark.parametrize("length", [640, 1152])
def test_a_header_whose_length_reads_like_the_start_of_a_pickle_is_a_header(tmp_path, length):
    tensors = {"a": torch.arange(3.0)}
    plain = len(header_bytes([("a", "float32", (3,))], {"note": ""}))
    write_safetensors(tmp_path / "file", tensors, {"note": "x" * (length + 8 - plain)})

    start = (tmp_path / "file").read_bytes()[:8]
    assert struct.unpack("<Q", start)[0] == length
    assert torch.equal(SafeFile(tmp_path / "file").tensor("a"), tensors["a"])


def test_a_pytorch_zip_is_refused_with_the_command_that_converts_it(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "model.pt")
    with pytest.raises(InvalidUploadError, match="pickle"):
        read_header(tmp_path / "model.pt")


@pytest.mark.parametrize(("count", "says"), [(250_000, "at most 50000"), (1_000_000, "header claims")])
def test_absurd_numbers_of_tensors_are_refused(tmp_path, count, says):
    header = (
        b"{"
        + b",".join(b'"%d":{"dtype":"U8","shape":[],"data_offsets":[0,1]}' % i for i in range(count))
        + b"}"
    )
    with pytest.raises(InvalidUploadError, match=says):
        read_header(crafted(tmp_path, header, b"\0"))


@given(cut=st.integers(0, 10_000))
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cut")
    write_safetensors(folder / "whole", TENSORS)
    content = (folder / "whole").read_bytes()
    (folder / "cut").write_bytes(content[: cut % len(content)])
    with pytest.raises(InvalidUploadError):
        read_header(folder / "cut")


@given(position=st.integers(0, 400), value=st.integers(0, 255))
def test_a_flipped_byte_in_the_header_is_refused_or_harmless_and_never_crashes(
    tmp_path_factory, position, value
):
    folder = tmp_path_factory.mktemp("flip")
    write_safetensors(folder / "file", TENSORS)
    content = bytearray((folder / "file").read_bytes())
    content[position % len(content)] = value
    (folder / "file").write_bytes(content)
    try:
        tensors = SafeFile(folder / "file").tensors()
    except StoreError:
        return
    assert sum(t.numel() * t.element_size() for t in tensors.values()) <= len(content)
