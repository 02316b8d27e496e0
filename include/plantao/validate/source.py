"""Is the source what the job and the model need? Pure; the whole answer at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plantao.extract.source import missing_columns
from plantao.validate.contract import differences
from plantao.validate.verdict import rule_problems

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plantao.job import Job
    from plantao.validate.contract import Contract


def source_problems(job: Job, source_types: Mapping[str, str], contract: Contract) -> list[str]:
    """Return everything that keeps the job from scoring this source with this model.

    `source_types` gives the PostgreSQL type of each column of the source.
    """
    return [
        *missing_columns(job, source_types),
        *differences(contract, source_types),
        *rule_problems(job.validation.columns, contract),
    ]
