"""Bring a fitted model into the store and into the databases of the jobs that use it."""

from __future__ import annotations

import getpass
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from plantao.models import registry
from plantao.models import store as model_store
from plantao.models.environment import current_environment
from plantao.release.describe import describe
from plantao.score import loader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from plantao.models.manifest import Manifest
    from plantao.release.describe import Baseline
    from plantao.runtime import Place


@dataclass(frozen=True)
class Entry:
    """One database that now knows the version, and whether the version is champion there."""

    connection: str
    became_champion: bool


def register(  # noqa: PLR0913 - what a registration is asked
    content: bytes,
    frame: pd.DataFrame,
    place: Place,
    *,
    name: str,
    positive: str | None = None,
    metrics: Mapping[str, float] | None = None,
    training: Mapping[str, Any] | None = None,
    connections: Sequence[str] | None = None,
    why: str = "registered",
    trust: Sequence[str] = (),
    baseline: Baseline | None = None,
) -> tuple[Manifest, list[Entry]]:
    """Register the model in `content` (a joblib or a .skops file) as the next version of `name`.

    `trust` are the types that a .skops file may make besides those that skops trusts by itself.
    The databases are asked first, so that nothing is put into the store when one of them cannot take the version.
    """
    trusted = loader.accepted_types(content, trust)
    model = loader.opened(content, name, trusted)
    who = getpass.getuser()
    chosen = list(connections or registry.databases_of(name, place))
    taken: list[int] = []
    for connection in chosen:
        with registry.session(connection, place) as session:
            taken += [row["version"] for row in registry.versions(session, name)]
    manifest = describe(
        model,
        frame,
        name=name,
        version=model_store.next_version(place.settings.model_store, name, taken),
        sha256=hashlib.sha256(content).hexdigest(),
        file="model.skops" if loader.is_skops(content) else "model.joblib",
        created_by=who,
        created_at=datetime.now(UTC),
        environment=current_environment(place.settings.lock),
        trusted=trusted,
        positive=positive,
        metrics=metrics,
        training=training,
        baseline=baseline,
    )
    model_store.write_version(place.settings.model_store, manifest, content)
    return manifest, enter(manifest, place, chosen, why)


def enter(manifest: Manifest, place: Place, connections: Sequence[str], why: str = "registered") -> list[Entry]:
    """Enter a version that is in the store into the databases of `connections`, as it is there now."""
    store = place.settings.model_store
    loader.verify_bytes(model_store.read_bytes(store, manifest), manifest, manifest.sha256)
    uri = model_store.address_of(store, manifest)
    entries = []
    for connection in connections:
        with registry.session(connection, place) as session:
            decision = registry.Decision(getpass.getuser(), why)
            entries.append(Entry(connection, registry.register(session, manifest, uri, decision)))
    return entries
