"""What one batch gives back, the next one takes: how this process asks the system for memory.

glibc returns freed megabytes to the kernel at once. A page that comes again is cleared first, and for the arrays of a
batch that costs about as much as what is computed in them: a tenth of a run. It also gives each thread a store of its
own, though the thread that reads allocates what the one that scores sets free.

https://man7.org/linux/man-pages/man3/mallopt.3.html
"""

from __future__ import annotations

import ctypes
from functools import cache

# From malloc.h: where "returned at once" begins, what may stay at the end of a store, and how many stores there are.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
LARGEST_KEPT = 32 << 20
MOST_KEPT = 256 << 20


@cache
def keep_freed() -> None:
    """Keep freed memory for the next batch, until the process ends; without glibc everything stays as it is.

    To be called before there are threads: a thread keeps the store that it has.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(M_TRIM_THRESHOLD, MOST_KEPT)
        mallopt(M_ARENA_MAX, 1)
