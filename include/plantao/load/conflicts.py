"""Rows that could not be inserted, because their key has a prediction already: whose is it?

Of the same row, when another run was faster. Of a row with the same key and another timestamp, when the client gave a
key to another row or moved a row: a conflict, since one prediction cannot be true of both. Or of a row of this very
run, which then has read a key twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from plantao.errors import SourceChanged
from plantao.load import table as tables
from plantao.postgres import session

if TYPE_CHECKING:
    from psycopg2.sql import Identifier
    from sqlalchemy import Connection

    from plantao.load.table import PredictionTable

EXAMPLES = 5


@dataclass
class Conflicts:
    """The rows of a run whose key has a prediction of another source timestamp."""

    rows: int = 0
    examples: list[tuple[Any, str, str]] = field(default_factory=list)
    """The key, the row's timestamp and that of its key's prediction, of a few."""

    def look(
        self, connection: Connection, table: PredictionTable, run_id: int, stage: Identifier, inserted: int
    ) -> None:
        """Count the conflicts of a stage of which `inserted` rows went in. Raises SourceChanged for a key met twice."""
        own, conflicting = session.fetch(connection, tables.compare_unwritten(table, run_id, stage))[0]
        if own > inserted:
            raise met_twice(run_id)
        self.rows += conflicting
        if conflicting and len(self.examples) < EXAMPLES:
            few = tables.select_conflicts(table, run_id, stage, EXAMPLES - len(self.examples))
            self.examples += session.fetch(connection, few)


def met_twice(run_id: int) -> SourceChanged:
    """Return the error of a run that has read a key twice although an index of the source says that it is unique."""
    message = (
        f"run {run_id} has read a key twice, although a unique index of the source covers it, so the index is damaged."
        " Nothing was written."
    )
    return SourceChanged(message, "let the client check the index (REINDEX finds the rows), then run it again", "load")
