"""Which rows belong to the control group: a stable share of the keys, chosen by a hash.

Pure. The same key is always in the same group of a job, in a re-run, a backfill and on another machine.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from plantao.validate.verdict import Mask


def control_group(keys: Sequence[pa.Array], share: float, salt: str) -> Mask:
    """Mark the rows whose key falls into the share [0, 1) of the hash's range; `salt` is the job's name."""
    count = len(keys[0])
    if share == 0:
        return np.zeros(count, dtype=bool)
    limit = int(share * 2**64)
    prefix = hashlib.blake2b(salt.encode(), digest_size=8)
    marks = np.empty(count, dtype=bool)
    for row, key in enumerate(zip(*(column.to_pylist() for column in keys), strict=True)):
        digest = prefix.copy()
        digest.update("\x1f".join(map(str, key)).encode())
        marks[row] = int.from_bytes(digest.digest()) < limit
    return marks
