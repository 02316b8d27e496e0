"""How many examples a property is tried with: all that it needs, or a share of them for a quick look."""

from __future__ import annotations

import os

SHARE = float(os.environ.get("SHARE_OF_EXAMPLES", "1"))


def examples(needed: int) -> int:
    """Return the number of examples for a property that needs `needed` of them in CI."""
    return max(2, round(needed * SHARE))
