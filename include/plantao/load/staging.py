"""Load one part of a window into a table of its own, where nobody sees it yet.

The table exists only once the part is complete: it is made in the transaction that fills it and closes its books.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from plantao.ledger import parts as ledger_of_parts
from plantao.load import table as tables
from plantao.load import write
from plantao.load.handover import hand_over
from plantao.postgres import session

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from plantao.load.table import PredictionTable
    from plantao.models.manifest import Output


@dataclass(frozen=True)
class Place:
    """One part of an attempt, and the number with which somebody has begun to score it."""

    run_id: int
    part: int
    taken: int


def open_load(connection: Connection, table: PredictionTable, output: Output, version: int, place: Place) -> write.Load:
    """Open the load of one part of the rows that belong into `table`."""
    staged = replace(table, name=write.part_table(connection, table.name, place.run_id, place.part))
    return _PartLoad(connection, staged, output, place.run_id, version, False, place=place, like=table)


@dataclass
class _PartLoad(write.Load):
    place: Place | None = None
    like: PredictionTable | None = None

    def _hold(self) -> None:
        assert self.place is not None
        assert self.like is not None
        ledger_of_parts.hold(self.connection, self.run_id, self.place.part, self.place.taken)
        session.execute(self.connection, tables.create_part(self.table, self.like))
        hand_over(self.connection, self.table.name.schema, self.table.identifier)
