"""Bytes by digest: one contract, several places to keep them."""

from store.blobs.contract import Blob, Blobs, BlobWriter, StoredBlob
from store.blobs.files import FileBlobs
from store.blobs.memory import MemoryBlobs
from store.blobs.place import BlobPlace, open_blobs

__all__ = ["Blob", "BlobPlace", "BlobWriter", "Blobs", "FileBlobs", "MemoryBlobs", "StoredBlob", "open_blobs"]
