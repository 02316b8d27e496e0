"""In what two environments differ. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Staging reads and writes elsewhere than production, and that is the point of it.
EXPECTED = "connections"
MISSING = "missing"


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same in two environments."""

    what: str
    """Where it stands in the environment's JSON, for instance `jobs.flight_delay.version`."""
    here: str
    there: str

    @property
    def expected(self) -> bool:
        """Whether two environments may well differ in it."""
        return self.what.split(".")[0] == EXPECTED


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[Difference]:
    """Return every difference; those that are expected come last."""
    ours, theirs = dict(_flat(here)), dict(_flat(there))
    found = [
        Difference(name, ours.get(name, MISSING), theirs.get(name, MISSING))
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name, MISSING) != theirs.get(name, MISSING)
    ]
    return sorted(found, key=lambda difference: difference.expected)


def _flat(values: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{within}{name}.")
        else:
            yield f"{within}{name}", str(value)
