"""A chunk's bytes, coded exactly: `zeros` (no payload), `zstd`, or `raw` where that gains under 3%."""

import numpy as np
import zstandard
from jaxtyping import UInt8

from store.errors import CorruptBlobError, UnsupportedFormatError

_LEVEL = 3
"""Finds all there is in masks and in planes of exponents; higher levels add nothing but time."""
_LEAST_GAIN = 0.03

Bytes = UInt8[np.ndarray, " bytes"]


class ChunkEncoder:
    """Chooses the codec of each chunk; one for a thread."""

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True)

    def encode(self, content: Bytes) -> tuple[str, bytes | memoryview]:
        """The codec chosen and the payload."""
        if not content.any():
            return "zeros", b""
        coded = self._compressor.compress(content.data)
        if len(coded) <= (1 - _LEAST_GAIN) * content.nbytes:
            return "zstd", coded
        return "raw", content.data


class ChunkDecoder:
    """Gives a chunk's bytes back; one for a thread."""

    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor()

    def decode(self, codec: str, payload: memoryview, *, size_bytes: int, what: str) -> Bytes:
        """The bytes of the chunk, exactly `size_bytes` of them.

        Raises:
            CorruptBlobError: The payload does not decode to that many bytes.
            UnsupportedFormatError: The codec is unknown.
        """
        if codec == "zeros":
            return np.zeros(size_bytes, dtype=np.uint8)
        if codec == "raw":
            content: bytes | memoryview = payload
        elif codec == "zstd":
            content = self._decompressed(payload, size_bytes=size_bytes, what=what)
        else:
            raise UnsupportedFormatError(f"{what} is coded as {codec!r}; upgrade condu to read it")
        if len(content) != size_bytes:
            raise CorruptBlobError(what, expected=f"{size_bytes} bytes", found=f"{len(content)} bytes")
        return np.frombuffer(content, dtype=np.uint8)

    def _decompressed(self, payload: memoryview, *, size_bytes: int, what: str) -> bytes:
        try:
            # Looked at first: the decoder would allocate whatever the frame claims.
            claimed = zstandard.frame_content_size(payload)
            if claimed != size_bytes:
                raise CorruptBlobError(what, expected=f"{size_bytes} bytes", found=f"a frame of {claimed}")
            return self._decompressor.decompress(payload)
        except zstandard.ZstdError as error:
            raise CorruptBlobError(what, expected="a zstd frame", found=str(error)) from error
