"""Challengers of a window that is cut into parts: each scores the rows of every part in the champion's pass over it.

`plan` starts an attempt of each beside the champion's, with the same parts. Whoever scores a part takes the lines of
all of them with one number; the challengers stage their rows first, and the champion's line closes the pass. So a part
that is scored again is scored again by all, and a challenger's part that has another number than the champion's does
not have the same rows. One that fails is closed as failed, with an alert, and all workers go on without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from plantao.errors import Superseded, TargetRefused
from plantao.ledger import parts as ledger_of_parts
from plantao.ledger import session as ledger_session
from plantao.load import rejects, write
from plantao.load import staging as part_load
from plantao.measure.profile import daily_state
from plantao.models import registry
from plantao.postgres import driver_errors
from plantao.postgres import session as database
from plantao.run.challengers import Challenger, Challengers
from plantao.score import loader

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from plantao.ledger.parts import Edge
    from plantao.ledger.request import Request
    from plantao.models.manifest import Manifest
    from plantao.models.registry import Registered
    from plantao.outbox.alerts import Alert
    from plantao.runtime import Place

Ranges = list[tuple["Edge", "Edge"]]


def plan(request: Request, place: Place, connection: Connection, run_id: int, ranges: Ranges) -> None:
    """Start an attempt of each challenger beside the champion's, cut into the same parts.

    One that does not pass the gate is closed as failed, with an alert.
    """
    versions = registry.challengers(connection, request.job.score.model)
    Challengers(request, place).let_in([_Planned(request, place, version, run_id, ranges) for version in versions])


class _Planned(Challenger):
    """A challenger of which only the attempt is started."""

    def __init__(self, request: Request, place: Place, registered: Registered, beside: int, ranges: Ranges) -> None:
        super().__init__(request, place, registered)
        self.beside, self.ranges = beside, ranges

    def start(self) -> None:
        super().start()
        assert self.run_id is not None
        ledger_of_parts.plan(self.connection, self.run_id, self.ranges, replaces=False)
        self.release()


class ChallengersOfPart(Challengers):
    """The challengers of a champion's pass over one part."""

    def join(self, connection: Connection, run_id: int, part: int, taken: ledger_of_parts.Taken) -> None:
        """Let in those whose line of the part was taken with the champion's."""
        versions = [(k, version) for k, version in registry.beside(connection, run_id) if k in taken.beside]
        places = [(part_load.Place(k, part, taken.number), version) for k, version in versions]
        self.let_in([_OfPart(self._request, self._place, version, where) for where, version in places])

    def publish(self, moment: str) -> None:
        """Stage the part of each; the second time there is nothing left to do."""
        super().publish(moment)
        self._running = []


class _OfPart(Challenger):
    """One challenger on the rows of one part."""

    def __init__(self, request: Request, place: Place, registered: Registered, where: part_load.Place) -> None:
        super().__init__(request, place, registered)
        self.where = where

    def start(self) -> None:
        job = self.job
        session = ledger_session.session(job, self.place, f"plantao/{job.name}/{self.where.run_id}/{self.where.part}")
        self.connection = self._session.enter_context(session)
        self.run_id = self.where.run_id
        ledger_of_parts.join(self.connection, self.run_id)
        with self.watch.step("score"):
            self.version = loader.verified(self.registered, self.place.settings)

    def _new_load(self, manifest: Manifest) -> write.Load:
        return part_load.open_load(self.connection, self.table, manifest.output, manifest.version, self.where)

    def publish(self, moment: str) -> None:  # noqa: ARG002 - each part has a moment of its own
        """Close the books of the part; nothing of it is visible yet."""
        assert self.load is not None
        counts, where = self._loaded(self.load), self.where
        with (
            driver_errors.explained("load", TargetRefused, f"closing part {where.part}"),
            database.deadline(self.connection, database.STATEMENT_SECONDS),
        ):
            ledger_of_parts.stage(
                self.connection, where.run_id, where.part, counts,
                rejects=rejects.lines_of(self.rejected), profile=self.sketch.as_dict(), seconds=self.watch.seconds,
                states={
                    "reference": self.series.reference_version, "lines": daily_state.lines_of(self.sketch.states())
                },
            )  # fmt: skip
            self.connection.commit()
        self._session.close()

    def close(self, error: BaseException, alert: Alert | None = None) -> None:
        """Close the whole attempt as failed when this version has failed; else only leave it.

        Without an alert it is the champion that has failed on this part, and the next try begins it anew; and who was
        superseded has nothing to say.
        """
        if alert is None or isinstance(error, Superseded):
            self.release()
        else:
            super().close(error, alert)
