"""The page of a check: one line per question, and what rests on a question that failed is not asked. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

from plantao.errors import PlantaoError, described

if TYPE_CHECKING:
    from collections.abc import Callable

Found = TypeVar("Found")
AGAIN = "check again; if it stays, see what keeps the database busy, or the network between it and this machine"


@dataclass(frozen=True)
class Answer:
    """How something stands, and the cure when it does not stand well."""

    state: Literal["OK", "WARN", "FAIL"]
    what: str
    cure: str = ""


def ok(what: str) -> Answer:
    """Return the answer that all is well."""
    return Answer("OK", what)


def warn(what: str, cure: str) -> Answer:
    """Return the answer that runs will work, and that somebody should know something."""
    return Answer("WARN", what, cure)


def fail(what: str, cure: str) -> Answer:
    """Return the answer that runs will not work."""
    return Answer("FAIL", what, cure)


def refused(error: PlantaoError) -> Answer:
    """Return the answer for an error of ours. A run is retried by Airflow, and a check by whoever reads it."""
    return fail(error.what, AGAIN if error.next_step.startswith("nothing") else error.next_step)


@dataclass(frozen=True)
class Line:
    """One line of the page: what was asked about, and the answer."""

    of: str
    answer: Answer
    exit_status: int = 1
    """That of the command, should the answer be FAIL."""

    def as_dict(self) -> dict[str, str]:
        """Return the line as plain values."""
        return {"state": self.answer.state, "of": self.of, "what": self.answer.what, "cure": self.answer.cure}


@dataclass
class Page:
    """The lines so far."""

    lines: list[Line] = field(default_factory=list)

    def add(self, of: str, answer: Answer, exit_status: int = 1) -> None:
        """Write an answer down."""
        self.lines.append(Line(of, answer, exit_status))

    def ask(self, of: str, question: Callable[[], tuple[Answer, Found | None]]) -> Found | None:
        """Ask a question and write the answer down; return what it has found, or None when it failed."""
        try:
            answer, found = question()
        except PlantaoError as error:
            self.add(of, refused(error))
            return None
        except Exception as error:  # noqa: BLE001 - the other questions, and the other jobs, are still asked
            self.add(of, fail(described(error), "a defect of Plantão: report it with this line"))
            return None
        self.add(of, answer)
        return None if answer.state == "FAIL" else found

    @property
    def exit_status(self) -> int:
        """0 when a run will work, 1 when it will not, 2 when a job file is broken."""
        return max((line.exit_status for line in self.lines if line.answer.state == "FAIL"), default=0)
