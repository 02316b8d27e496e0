"""From a file's bytes to a model that has proved itself on this machine.

The order matters: unpickling a file runs its code, so the bytes are hashed first, and the very bytes that were
hashed are the ones that are loaded. Then the model must answer the golden rows as it did at registration.

A .skops file makes no other types than those that were accepted at its registration. Which of the two a file is, its
bytes say and not its manifest, so that no edit of a manifest gets a .skops file unpickled.
"""

from __future__ import annotations

import hashlib
import io
import logging
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from plantao import log
from plantao.errors import EnvironmentDiffers, GoldenRowsDiffer, ModelTampered, ModelUnreadable, UsageError
from plantao.models import store
from plantao.models.environment import current_environment
from plantao.models.manifest import environment_differences, same_minor
from plantao.score.fast_encoders import quicken
from plantao.score.fast_trees import sort_rows
from plantao.score.predict import arrow_type, probabilities, to_frame

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from plantao.config.settings import Settings
    from plantao.models.manifest import Golden, Manifest
    from plantao.models.registry import Registered


NOTHING_WRITTEN = "No row was read and nothing was written"
# What a .skops file, being a zip file, begins with. No pickle can: there, "P" asks for an object of the reader's own.
SKOPS = b"PK\x03\x04"


def load(content: bytes, manifest: Manifest, registered_sha256: str) -> Any:
    """Return the model in `content`, once hash, environment and golden rows agree with the registration."""
    verify_bytes(content, manifest, registered_sha256)
    verify_environment(manifest)
    model = opened(content, manifest.name, manifest.trusted)
    quicken(model)
    sort_rows(model)
    verify_golden_rows(model, manifest)
    return model


def verify_bytes(content: bytes, manifest: Manifest, registered_sha256: str) -> None:
    """Raise ModelTampered unless the bytes are those that were registered."""
    found = hashlib.sha256(content).hexdigest()
    if found != registered_sha256 or manifest.sha256 != registered_sha256:
        what = "file" if found != registered_sha256 else "manifest"
        message = (
            f"the {what} of model {manifest.name} is not the one that was registered: SHA-256 "
            f"{registered_sha256[:12]}… was registered, {(found if what == 'file' else manifest.sha256)[:12]}… "
            f"was found. It was not opened. {NOTHING_WRITTEN}."
        )
        advice = "restore the version's folder from a backup, or register the model again as a new version"
        raise ModelTampered(message, advice, "score")


def verify_environment(manifest: Manifest) -> None:
    """Raise EnvironmentDiffers when a library that must be the same is another one here."""
    forbids, _ = environment_differences(manifest.environment, current_environment())
    if forbids:
        message = f"model {manifest.name} was made elsewhere: {'; '.join(forbids)}. {NOTHING_WRITTEN}."
        advice = "install the lock file the model was trained with, or train and register a version with this one"
        raise EnvironmentDiffers(message, advice, "score")


def opened(content: bytes, name: str, trusted: Collection[str] = ()) -> Any:
    """Return the model in bytes that somebody vouches for: unless they are a .skops file, this runs their code.

    Raises EnvironmentDiffers for the file of another scikit-learn (another patch level is only logged), and
    ModelUnreadable.
    """
    import sklearn
    from sklearn.exceptions import InconsistentVersionWarning

    model, failure, unknown = None, None, []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InconsistentVersionWarning)
        try:
            unknown = types_beyond(trusted, content)
            model = None if unknown else _deserialised(content, trusted)
        except Exception as error:  # noqa: BLE001 - raised below, once it is known whether another version is the cause
            failure = error
    for warning in caught:
        if not isinstance(warning.message, InconsistentVersionWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        elif same_minor(warning.message.original_sklearn_version, sklearn.__version__):
            log.event("the model is of another patch level of scikit-learn", {"model": name}, logging.WARNING)
        else:
            message = f"model {name} was made elsewhere: {warning.message}. {NOTHING_WRITTEN}."
            advice = "install the lock file the model was trained with, or train and register a version with this one"
            raise EnvironmentDiffers(message, advice, "score") from failure
    if unknown:
        message = f"model {name} holds types that were not accepted at its registration: {', '.join(unknown)}. "
        advice = "register the file as a new version, with --trust for the types that you know"
        raise ModelUnreadable(message + f"It was not opened. {NOTHING_WRITTEN}.", advice, "score")
    if failure is not None:
        message = f"model {name} could not be loaded: {type(failure).__name__}: {failure}. {NOTHING_WRITTEN}."
        advice = "install the package that the model's classes come from, in the version of the training"
        raise ModelUnreadable(message, advice, "score") from failure
    return model


def is_skops(content: bytes) -> bool:
    """Tell whether a file is a .skops file and no pickle."""
    return content.startswith(SKOPS)


def types_beyond(trusted: Collection[str], content: bytes) -> list[str]:
    """Return what a .skops file makes beyond the trusted types and those skops trusts by itself; runs nothing in it."""
    if not is_skops(content):
        return []
    from skops.io import get_untrusted_types

    return sorted(set(get_untrusted_types(data=content)) - set(trusted))


def accepted_types(content: bytes, accept: Collection[str]) -> list[str]:
    """Return which of the accepted types a .skops file makes. Raises UsageError when it makes others as well."""
    if accept and not is_skops(content):
        message = "--trust goes with a .skops file; to open a joblib file is to trust all of it."
        raise UsageError(message)
    try:
        needed, refused = types_beyond((), content), types_beyond(accept, content)
    except Exception as error:
        message = f"the file is no .skops file: {type(error).__name__}: {error}."
        raise UsageError(message, "write it with skops.io.dump") from error
    if refused:
        message = f"the file makes types that nobody has accepted: {', '.join(refused)}."
        raise UsageError(message, f"if you know them, add {' '.join(f'--trust {name}' for name in refused)}")
    return needed


def _deserialised(content: bytes, trusted: Collection[str]) -> Any:
    if is_skops(content):
        from skops.io import loads

        return loads(content, trusted=list(trusted))
    import joblib

    return joblib.load(io.BytesIO(content))


def ask_golden_rows(model: Any, manifest: Manifest, golden: Golden) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the model's raw answers for golden rows, its own or another version's, rows by classes.

    Raises KeyError when the rows lack a column of the model, and whatever the model raises.
    """
    columns = [
        pa.array([_from_json(row[column.name], column.kind) for row in golden.rows], arrow_type(column))
        for column in manifest.contract.columns
    ]
    return probabilities(model, to_frame(columns, manifest.contract), manifest.output)


def verify_golden_rows(model: Any, manifest: Manifest) -> None:
    """Raise GoldenRowsDiffer unless the model answers the golden rows as it did at registration."""
    golden = manifest.golden
    advice = "compare the environments (plantao check), or register the model again on this kind of machine"
    try:
        found = ask_golden_rows(model, manifest, golden)
    except Exception as error:
        message = f"model {manifest.name} raised {type(error).__name__} on its golden rows: {error}. {NOTHING_WRITTEN}."
        raise GoldenRowsDiffer(message, advice, "score") from error
    expected = np.array(golden.answers, dtype=np.float64)
    if found.shape != expected.shape:
        message = f"model {manifest.name} answers its golden rows in another shape. {NOTHING_WRITTEN}."
        raise GoldenRowsDiffer(message, advice, "score")
    same = np.isclose(found, expected, rtol=golden.tolerance, atol=golden.tolerance).all(axis=1)
    if not same.all():
        worst = float(np.nanmax(np.abs(found - expected))) if np.isfinite(found).any() else float("nan")
        message = (
            f"model {manifest.name} answers {int((~same).sum())} of its {len(same)} golden rows differently here "
            f"than at registration (by up to {worst:.3g}; {golden.tolerance:g} is allowed). {NOTHING_WRITTEN}."
        )
        raise GoldenRowsDiffer(message, advice, "score")


def _from_json(value: Any, kind: str) -> Any:
    from datetime import date, datetime

    if value is None or kind not in {"timestamp", "date"}:
        return value
    return datetime.fromisoformat(value) if kind == "timestamp" else date.fromisoformat(value)


@dataclass(frozen=True)
class Verified:
    """A model version that has passed the gate on this machine."""

    manifest: Manifest
    model: Any


def verified(registered: Registered, settings: Settings) -> Verified:
    """Return the version, loaded, once hash, environment and golden rows agree. Raises ModelRefused."""
    manifest = store.read_manifest(settings.model_store, registered.model, registered.version)
    content = store.read_bytes(settings.model_store, manifest)
    with bounded_threads(settings.threads):
        return Verified(manifest, load(content, manifest, registered.sha256))


@contextmanager
def bounded_threads(limit: int) -> Iterator[None]:
    """Bound the threads of OpenMP in this thread, and those of BLAS, which always wait spinning, to half as many."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits({"openmp": limit, "blas": max(1, limit // 2)}):
        yield
