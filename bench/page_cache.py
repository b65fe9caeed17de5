"""Files out of and back in the system's page cache, and a look at what of a file is in it."""

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np


def drop(path: Path) -> None:
    """Write the file's pages to disk and let the system forget them."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def resident_share(path: Path) -> float:
    """The share of the file's pages that are in memory (mincore); 0 right after `drop`."""
    size = path.stat().st_size
    pages = -(-size // mmap.PAGESIZE)
    states = np.zeros(pages, dtype=np.uint8)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = np.frombuffer(mapped, dtype=np.uint8)
        address = ctypes.c_void_p(view.ctypes.data)
        target = ctypes.c_void_p(states.ctypes.data)
        failed = ctypes.CDLL(None, use_errno=True).mincore(address, ctypes.c_size_t(size), target)
        del view
    if failed:
        raise OSError(ctypes.get_errno(), f"mincore of {path}")
    return float(np.count_nonzero(states & 1)) / pages
