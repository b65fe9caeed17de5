"""A piece's bytes, coded exactly: `zeros` (no payload), `zstd`, or `raw` where that gains under 3%.

Everything here may be called from several threads at once: zstd's contexts are kept one a thread.
"""

import threading

import numpy as np
import zstandard
from jaxtyping import UInt8

from store.errors import CorruptBlobError, UnsupportedFormatError

_PARAMETERS = zstandard.ZstdCompressionParameters(
    strategy=zstandard.STRATEGY_FAST,
    window_log=20,
    hash_log=6,
    chain_log=6,
    min_match=7,
    search_log=1,
    target_length=0,
    write_content_size=True,
)
"""What is stored has long runs or none: bits, exponents and codes differ in how often they come, not in their
order. Short matches found there by chance cost more than the symbols they stand for, the more the harder a
level searches; with these, planes of exponents take up to a fifth fewer bytes than at level 3, and half
the time to decode (docs/decisions/0008)."""
_LEAST_GAIN = 0.03

CODECS = ("zeros", "raw", "zstd")

Bytes = UInt8[np.ndarray, " bytes"]
Part = tuple[str, bytes | memoryview]
"""The codec chosen, and the payload."""


class _Contexts(threading.local):
    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(compression_params=_PARAMETERS)
        self.decompressor = zstandard.ZstdDecompressor()


_contexts = _Contexts()


def encode(content: Bytes) -> Part:
    """The codec chosen and the payload; a raw payload is a view of the content, which must not change."""
    if not content.any():
        return "zeros", b""
    coded = _contexts.compressor.compress(content.data)
    if len(coded) <= (1 - _LEAST_GAIN) * content.nbytes:
        return "zstd", coded
    return "raw", content.data


def decode(codec: str, payload: memoryview, *, out: Bytes, what: str) -> None:
    """Fill `out` with the bytes that were encoded; `what` names them in an error.

    Raises:
        CorruptBlobError: The payload does not decode to exactly that many bytes.
        UnsupportedFormatError: The codec is unknown.
    """
    if codec not in CODECS:
        raise UnsupportedFormatError(f"{what} is coded as {codec!r}; upgrade condu to read it")
    size = 0 if codec == "zeros" else out.nbytes
    content = _decompressed(payload, size_bytes=size, what=what) if codec == "zstd" else payload
    if len(content) != size:
        raise CorruptBlobError(what, expected=f"{size} bytes", found=f"{len(content)} bytes")
    out[:size] = np.frombuffer(content, dtype=np.uint8)
    out[size:] = 0


def _decompressed(payload: memoryview, *, size_bytes: int, what: str) -> bytes:
    try:
        # Looked at first: the decoder would allocate whatever the frame claims.
        claimed = zstandard.frame_content_size(payload)
        if claimed != size_bytes:
            raise CorruptBlobError(what, expected=f"{size_bytes} bytes", found=f"a frame of {claimed}")
        return _contexts.decompressor.decompress(payload)
    except zstandard.ZstdError as error:
        raise CorruptBlobError(what, expected="a zstd frame", found=str(error)) from error


def check_spare_bits(packed: Bytes, num_bits: int, what: str) -> None:
    """Nothing, where the bits behind the last element are zero; else CorruptBlobError."""
    if num_bits % 8 and packed[-1] >> num_bits % 8:
        raise CorruptBlobError(what, expected=f"{num_bits} bits", found="bits behind the last")
