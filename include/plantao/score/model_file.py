"""From a file's bytes to a model that has proved itself on this machine.

The order matters: unpickling a file runs its code, so the bytes are hashed first, and the very bytes that were
hashed are the ones that are loaded. Then the model must answer the golden rows as it did at registration.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from plantao.errors import EnvironmentDiffers, GoldenRowsDiffer, ModelTampered, ModelUnreadable
from plantao.score import manifest as manifests
from plantao.score.predict import arrow_type, probabilities, to_frame

if TYPE_CHECKING:
    from plantao.score.manifest import Golden, Manifest

NOTHING_WRITTEN = "No row was read and nothing was written"


def load(content: bytes, manifest: Manifest, registered_sha256: str) -> Any:
    """Return the model in `content`, once hash, environment and golden rows agree with the registration."""
    verify_bytes(content, manifest, registered_sha256)
    verify_environment(manifest)
    model = unpickle(content, manifest)
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
    forbids, _ = manifests.environment_differences(manifest.environment, manifests.current_environment())
    if forbids:
        message = f"model {manifest.name} was made elsewhere: {'; '.join(forbids)}. {NOTHING_WRITTEN}."
        advice = "install the lock file the model was trained with, or train and register a version with this one"
        raise EnvironmentDiffers(message, advice, "score")


def unpickle(content: bytes, manifest: Manifest) -> Any:
    """Load the verified bytes. A warning of another scikit-learn version is an error."""
    import joblib
    from sklearn.exceptions import InconsistentVersionWarning

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", InconsistentVersionWarning)
            return joblib.load(io.BytesIO(content))
    except InconsistentVersionWarning as warning:
        message = f"model {manifest.name} was made elsewhere: {warning}. {NOTHING_WRITTEN}."
        advice = "install the lock file the model was trained with, or train and register a version with this one"
        raise EnvironmentDiffers(message, advice, "score") from warning
    except Exception as error:
        message = f"model {manifest.name} could not be loaded: {type(error).__name__}: {error}. {NOTHING_WRITTEN}."
        advice = "install the package that the model's classes come from, in the version of the training"
        raise ModelUnreadable(message, advice, "score") from error


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
