"""The gate: no row is read before the version that shall score it has proved itself on this machine."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plantao.score import model_file, model_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plantao.score.manifest import Manifest
    from plantao.score.registry import Registered
    from plantao.settings import Settings


@dataclass(frozen=True)
class Verified:
    """A model version that has passed the gate on this machine."""

    manifest: Manifest
    model: Any


def verified(registered: Registered, settings: Settings) -> Verified:
    """Return the version, loaded, once hash, environment and golden rows agree. Raises ModelRefused."""
    manifest = model_store.read_manifest(settings.model_store, registered.model, registered.version)
    content = model_store.read_bytes(settings.model_store, manifest)
    with bounded_threads(settings.threads):
        return Verified(manifest, model_file.load(content, manifest, registered.sha256))


@contextmanager
def bounded_threads(limit: int) -> Iterator[None]:
    """Bound the threads of OpenMP in this thread, and those of BLAS, which always wait spinning, to half as many."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits({"openmp": limit, "blas": max(1, limit // 2)}):
        yield
