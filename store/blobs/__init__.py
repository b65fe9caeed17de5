"""Bytes by digest: one contract, several places to keep them."""

from store.blobs.contract import Blob, Blobs, BlobWriter, StoredBlob
from store.blobs.files import FileBlobs
from store.blobs.memory import MemoryBlobs

__all__ = ["Blob", "BlobWriter", "Blobs", "FileBlobs", "MemoryBlobs", "StoredBlob"]
