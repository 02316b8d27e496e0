"""What a model needs of its input: the columns it was trained on, with their types, gaps and values.

Pure. A contract is made once, from the training frame, when a version is registered, and stored in its manifest.
Before a run reads a row it is compared with the source's columns; while it reads, `verdict` holds every row
against it.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["float", "integer", "boolean", "text", "timestamp", "date"]

# PostgreSQL types that each kind of column may come from, and the cast with which it then travels. Only casts
# that cannot change a value's meaning: a whole number may become a float, a float never a whole number, and
# nothing but text becomes text. `numeric` becomes a double, as pandas' own float columns are.
SOURCES: dict[Kind, dict[str, str]] = {
    "float": {
        "float8": "",
        **dict.fromkeys(("float4", "int2", "int4", "int8", "numeric"), "::double precision"),
    },
    "integer": {"int8": "", "int2": "::bigint", "int4": "::bigint"},
    "boolean": {"bool": ""},
    "text": {"text": "", **dict.fromkeys(("varchar", "bpchar", "uuid", "enum", "citext", "name"), "::text")},
    "timestamp": {"timestamptz": "", "timestamp": "", "date": "::timestamp"},
    "date": {"date": ""},
}

SERVED = frozenset(kind for kinds in SOURCES.values() for kind in kinds)
"""Every PostgreSQL type that a run can read into a model."""


class Column(BaseModel):
    """One column of the model's input."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: Kind
    dtype: str
    """The pandas dtype of the training frame, which the model is given again."""
    nullable: bool
    """Whether the training frame had gaps here."""
    accepts_null: bool
    """Whether the model answers at all when there is a gap here."""
    accepts_unknown: bool = True
    """Text: whether the model answers for a value that the training frame did not have."""
    categories: tuple[str | int, ...] | None = None
    """Text and categories: the values of the training frame, when they are few enough to list."""
    min: float | None = None
    max: float | None = None

    def cast(self, source_type: str) -> str:
        """Return the cast with which a column of this PostgreSQL type travels."""
        return SOURCES[self.kind][source_type]

    def problem(self, source_type: str) -> str | None:
        """Say what is wrong with a source column of this PostgreSQL type; None when nothing is."""
        zoned = ", UTC" in self.dtype or "tz" in self.dtype
        if source_type not in SOURCES[self.kind]:
            accepted = ", ".join(SOURCES[self.kind])
            return f"column {self.name!r} is {source_type}, but the model was trained on {self.kind} ({accepted})"
        if self.kind == "timestamp" and zoned != (source_type == "timestamptz"):
            trained = "instants with a time zone" if zoned else "local times without a zone"
            return f"column {self.name!r} is {source_type}, but the model was trained on {trained}"
        return None


class Contract(BaseModel):
    """The columns of the model's input, in the order of the training frame."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: tuple[Column, ...]

    def column(self, name: str) -> Column | None:
        """Return the column called `name`, if there is one."""
        return next((column for column in self.columns if column.name == name), None)


def differences(contract: Contract, source_types: Mapping[str, str]) -> list[str]:
    """Return everything in which the source's columns break the contract; further columns do not matter.

    `source_types` gives the PostgreSQL type of each column of the source.
    """
    problems = []
    unused = [name for name in source_types if contract.column(name) is None]
    for column in contract.columns:
        if column.name not in source_types:
            near = difflib.get_close_matches(column.name, unused, n=1) or [n for n in unused if column.name in n]
            hint = f" (there is a column {near[0]!r}: was it renamed?)" if near else ""
            problems.append(f"column {column.name!r} is missing{hint}")
        elif (problem := column.problem(source_types[column.name])) is not None:
            problems.append(problem)
    return problems
