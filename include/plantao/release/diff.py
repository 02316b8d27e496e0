"""In what two versions of a model differ, from what their manifests say to what they answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from plantao.errors import PlantaoError
from plantao.models import registry
from plantao.release.comparison import compare, last_window
from plantao.score import loader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from plantao.models.manifest import Manifest
    from plantao.runtime import Place
    from plantao.score.loader import Verified


@dataclass(frozen=True)
class Line:
    """One thing in which two versions differ."""

    of: str
    what: str
    old: Any
    new: Any


def differences(model: str, old: int, new: int, place: Place) -> list[Line]:
    """Return everything in which two versions differ. Raises ModelRefused when one does not pass the gate."""
    connections = registry.databases_of(model, place)
    with registry.session(connections[0], place) as session:
        registered = [registry.named(session, model, version) for version in (old, new)]
    first, second = (loader.verified(one, place.settings) for one in registered)
    return [
        *of_manifests(first.manifest, second.manifest),
        *_on_golden_rows(first, second),
        *_on_last_windows(model, first, second, place),
    ]


def of_manifests(old: Manifest, new: Manifest) -> Iterator[Line]:
    """Yield in what two manifests differ: file, output, contract, environment, metrics, reference. Pure."""
    if old.sha256 != new.sha256:
        yield Line("file", "sha256", old.sha256[:12], new.sha256[:12])
    yield from _of_mappings("output", old.output.model_dump(), new.output.model_dump())
    columns = [{column.name: column for column in manifest.contract.columns} for manifest in (old, new)]
    for name in dict.fromkeys([*columns[0], *columns[1]]):
        sides = [side[name].model_dump() if name in side else None for side in columns]
        if None in sides:
            yield Line("contract", name, *("-" if side is None else side["kind"] for side in sides))
        else:
            yield from (
                Line("contract", f"{name}: {line.what}", line.old, line.new)
                for line in _of_mappings("contract", sides[0] or {}, sides[1] or {})
            )
    yield from _of_mappings("environment", old.environment, new.environment)
    yield from _of_mappings("metrics", old.metrics, new.metrics)
    yield from _of_mappings("training", old.training, new.training)
    for name in dict.fromkeys([*old.reference["columns"], *new.reference["columns"]]):
        profiles = [manifest.reference["columns"].get(name, {}) for manifest in (old, new)]
        for figure in ("mean", "std", "missing", "rows"):
            sides = [profile.get(figure) for profile in profiles]
            if sides[0] != sides[1]:
                yield Line("reference", f"{name}: {figure}", *sides)
    yield from _of_mappings(
        "reference", *({"score: mean": manifest.reference["score"].get("mean")} for manifest in (old, new))
    )


def _of_mappings(of: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Line]:
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            yield Line(of, name, old.get(name), new.get(name))


def _on_golden_rows(old: Verified, new: Verified) -> Iterator[Line]:
    """Ask each version for the golden rows of both; where the contracts allow, that is."""
    for owner in (old, new):
        of = f"golden rows of {owner.manifest.name}"
        try:
            answers = [loader.ask_golden_rows(v.model, v.manifest, owner.manifest.golden) for v in (old, new)]
        except (PlantaoError, KeyError) as error:
            yield Line(of, "cannot be compared", "", f"they lack {error}")
            continue
        if answers[0].shape != answers[1].shape:
            yield Line(of, "shape of the answers", answers[0].shape, answers[1].shape)
            continue
        apart = np.abs(answers[0] - answers[1]).max(axis=1)
        yield Line(of, "mean answer", *(float(side[:, -1].mean()) for side in answers))
        yield Line(of, "largest difference", "", float(apart.max(initial=0.0)))


def _on_last_windows(model: str, old: Verified, new: Verified, place: Place) -> Iterator[Line]:
    for job in registry.jobs_of(model, place):
        with registry.session(job.load.connection, place) as session:
            window = last_window(job, session)
        if window is None:
            continue
        of = f"job {job.name}, {window.shown(job.zone)}"
        try:
            found = compare(job, window, old, new, place)
        except PlantaoError as error:
            yield Line(of, "cannot be compared", "", error.what)
            continue
        yield Line(of, "rows set aside", found.rejected_old, found.rejected_new)
        if found.both:
            yield Line(of, "mean score", found.score_sum_old / found.both, found.score_sum_new / found.both)
            yield Line(of, "decisions changed", "", f"{found.changed} of {found.both} ({found.share_changed:.1%})")
