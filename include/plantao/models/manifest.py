"""What is known of a model version besides its bytes: the manifest that stands next to the model file.

Pure. It carries what decides, on another machine and another day, whether the version may run there: the SHA-256
of the file, the libraries of the training, the contract, and golden rows with the answers the model gave.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from plantao.models.contract import Contract

if TYPE_CHECKING:
    from collections.abc import Mapping

LIBRARIES = ("scikit-learn", "numpy", "scipy", "pandas", "joblib")
FileName = Literal["model.joblib", "model.skops"]
# Two machines, or a batch and a single row, already differ in the last bits; a wrong library differs in the first.
TOLERANCE = 1e-6


class Part(BaseModel):
    """A part of a manifest: unknown keys are refused and nothing changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Output(Part):
    """What the model gives back."""

    kind: Literal["binary", "multiclass", "regression"]
    classes: tuple[bool | int | str, ...] = ()
    """The labels in the order of the model's own `classes_`."""
    positive: bool | int | str | None = None
    """Binary: the label whose probability is the score."""

    @property
    def positive_place(self) -> int:
        """Binary: the place of the positive class among the classes."""
        return [label == self.positive for label in self.classes].index(True)

    @property
    def prediction_type(self) -> str:
        """The PostgreSQL type of the `prediction` column."""
        if self.kind == "regression":
            return "double precision"
        kinds = {bool: "boolean", int: "bigint", str: "text"}
        return kinds[type(self.classes[0])]


class Golden(Part):
    """Rows of the training frame with the answers the model gave at registration."""

    rows: tuple[dict[str, Any], ...]
    answers: tuple[tuple[float, ...], ...]
    """Per row: the probability of each class in the order of `classes`, or the one value of a regression."""
    tolerance: float = TOLERANCE
    """The largest difference, absolute or relative, that counts as the same answer."""


class Manifest(Part):
    """One registered version of a model."""

    format: Literal[1] = 1
    model: str
    version: int = Field(ge=1)
    file: FileName
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    trusted: tuple[str, ...] = ()
    """The types of a .skops file that were accepted at registration, besides those that skops trusts by itself."""
    created_at: datetime
    created_by: str
    environment: dict[str, str]
    contract: Contract
    output: Output
    golden: Golden
    reference: dict[str, Any]
    metrics: dict[str, float] = {}
    training: dict[str, Any] = {}
    """The training data: how many rows, and from when to when if that is known."""

    @property
    def name(self) -> str:
        """The version as people write it."""
        return f"{self.model}/{self.version}"


def environment_differences(trained: Mapping[str, str], here: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return what differs between two environments: (what forbids to run, what is only worth knowing).

    Another scikit-learn forbids, unless it differs in the patch level alone, because it promises nothing about models
    of another version; about the rest the golden rows decide.
    """
    forbids: list[str] = []
    notes: list[str] = []
    for name, then in trained.items():
        now = here.get(name, "missing")
        if now != then:
            grave = name == "scikit-learn" and not same_minor(then, now)
            (forbids if grave else notes).append(f"{name} was {_short(then)} at training and is {_short(now)} here")
    return forbids, notes


def same_minor(one: str, other: str) -> bool:
    """Tell whether two versions of a library differ in the patch level at most."""
    return one.split(".")[:2] == other.split(".")[:2]


def _short(value: str) -> str:
    return f"{value[:19]}…" if value.startswith("sha256:") else value
