"""How many rows of a run may be set aside. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from plantao.errors import TooManyRejected

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plantao.job import Job

EXAMPLES_SHOWN = 3


def refuse_too_many(job: Job, rejects: Sequence[Mapping[str, Any]], total: int) -> None:
    """Raise TooManyRejected when more of `total` rows would be set aside than the job allows."""
    rejected, limit = len(rejects), job.validation.at_most_rejected
    if not total or rejected / total <= limit:
        return
    reasons = Counter((reject["reason"], reject["column_name"] or "key") for reject in rejects).most_common()
    listed = ", ".join(f"{count} {reason} ({column})" for (reason, column), count in reasons[:EXAMPLES_SHOWN])
    examples = ", ".join(str(reject["key"]) for reject in rejects[:EXAMPLES_SHOWN])
    message = (
        f"{rejected} of {total} rows would be set aside, more than at_most_rejected = {limit:g} allows: {listed}; "
        f"for instance {examples}. Nothing was written."
    )
    raise TooManyRejected(message, "look at these rows at the source, or change the limit", "validate")
