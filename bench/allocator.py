"""Whether freed memory goes back to the system, which then hands it out again page by page and zeroed.

Code that makes a new tensor for every step pays for that, and how much depends on the system more than on the
code: from a tenth of its time to most of it, where a virtual machine's host takes free memory back. So it is
measured both ways.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of glibc's mallopt
_SETTLED = {_TRIM_THRESHOLD: 64 * 2**20, _MMAP_THRESHOLD: 32 * 2**20, _MMAP_MAX: 65536}
"""Where glibc's own adaptation ends once large blocks have been freed."""

_KEEPING = {_TRIM_THRESHOLD: 2**31 - 1, _MMAP_THRESHOLD: 2**31 - 1, _MMAP_MAX: 0}


@contextmanager
def freed_memory_kept() -> Iterator[bool]:
    """While the context lasts, what is freed is kept for the next one who asks; False without glibc."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        yield False
        return
    for option, value in _KEEPING.items():
        library.mallopt(option, value)
    try:
        yield True
    finally:
        for option, value in _SETTLED.items():
            library.mallopt(option, value)
        library.malloc_trim(0)
