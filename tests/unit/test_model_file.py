"""From bytes to a model: which bytes run code, which do not, and which scikit-learn they may come from."""

from __future__ import annotations

import io
import pickle
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
import sklearn
import skops.io
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from plantao.errors import EnvironmentDiffers, ModelUnreadable, UsageError
from plantao.score.loader import accepted_types, is_skops, opened
from world import CreatesAFile, classifier, preparation, training_frame

FRAME = training_frame()
INPUTS = FRAME[["x", "y", "city"]]


def joblib_bytes(model, **options):
    content = io.BytesIO()
    joblib.dump(model, content, **options)
    return content.getvalue()


class Quiet:
    """What creates a file when it is opened, in the form in which skops writes an object down."""

    def __init__(self, path):
        self.path = path

    def __setstate__(self, state):
        Path(state["path"]).touch()


# --- .skops ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model", [RandomForestClassifier(5), HistGradientBoostingClassifier(max_iter=5)], ids=lambda m: type(m).__name__
)
def test_a_skops_file_opens_with_the_types_that_were_accepted(model):
    fitted = make_pipeline(preparation(), model).fit(INPUTS, FRAME["bad"])
    content = skops.io.dumps(fitted)
    with pytest.raises(UsageError, match=r"types that nobody has accepted: .*sklearn\..*--trust sklearn\.") as caught:
        accepted_types(content, ())
    offered = [word for word in caught.value.next_step.split() if "." in word]
    needed = accepted_types(content, [*offered, "os.system"])
    assert needed == sorted(offered)  # what is accepted and not needed is not written down
    same = opened(content, "m/1", needed).predict_proba(INPUTS)
    assert np.array_equal(same, fitted.predict_proba(INPUTS))


def test_a_skops_file_runs_nothing_of_its_own(tmp_path):
    canary = tmp_path / "canary"
    model = make_pipeline(FunctionTransformer(kw_args={"x": Quiet(str(canary))}))
    content = skops.io.dumps(model)
    with pytest.raises(UsageError, match=r"types that nobody has accepted: .*Quiet"):
        accepted_types(content, ())
    with pytest.raises(ModelUnreadable, match=r"not accepted at its registration: .*Quiet.*It was not opened.*--trust"):
        opened(content, "m/1", ())
    assert not canary.exists()
    opened(content, "m/1", skops.io.get_untrusted_types(data=content))
    assert canary.exists()  # it does bite


def test_what_a_skops_file_needs_is_found_in_a_file_that_is_none():
    with pytest.raises(UsageError, match=r"is no \.skops file.*skops\.io\.dump"):
        accepted_types(b"PK\x03\x04 and then nothing", ())
    with pytest.raises(ModelUnreadable, match="BadZipFile"):
        opened(b"PK\x03\x04 and then nothing", "m/1")


def test_trust_goes_with_skops_alone():
    content = joblib_bytes(classifier(FRAME))
    assert accepted_types(content, ()) == []
    with pytest.raises(UsageError, match="to open a joblib file is to trust all of it"):
        accepted_types(content, ["numpy.dtype"])


@pytest.mark.parametrize("options", [{}, *({"compress": (name, 3)} for name in ("zlib", "gzip", "bz2", "xz", "lzma"))])
def test_no_joblib_file_is_taken_for_a_skops_file(options):
    content = joblib_bytes(classifier(FRAME), **options)
    assert not is_skops(content)
    assert opened(content, "m/1").predict(INPUTS).any()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_begins_like_a_skops_file_cannot_be_a_pickle(tmp_path, protocol):
    # Otherwise a file that was accepted as harmless might be opened as a pickle, after an edit of its manifest.
    canary = tmp_path / "canary"
    content = b"PK\x03\x04" + pickle.dumps(CreatesAFile(str(canary)), protocol)
    for opens in (pickle.loads, lambda data: joblib.load(io.BytesIO(data)), lambda data: opened(data, "m/1")):
        with pytest.raises(Exception, match=r"persistent|BadZipFile"):
            opens(content)
    assert not canary.exists()
    pickle.loads(content[4:])
    assert canary.exists()  # it does bite


# --- the scikit-learn that made the file -----------------------------------------------------------------------------


def made_by(version, monkeypatch, dump):
    with monkeypatch.context() as patched:
        patched.setattr("sklearn.base.__version__", version)
        return dump(classifier(FRAME))


MAJOR, MINOR, PATCH = (int(part) for part in sklearn.__version__.split(".")[:3])


@pytest.mark.parametrize("dump", [joblib_bytes, skops.io.dumps], ids=["joblib", "skops"])
@pytest.mark.parametrize("version", ["1.5.2", f"{MAJOR}.{MINOR + 1}.0", f"{MAJOR + 1}.{MINOR}.{PATCH}"])
def test_the_file_of_another_scikit_learn_is_refused(monkeypatch, dump, version):
    content = made_by(version, monkeypatch, dump)
    with pytest.raises(EnvironmentDiffers, match=rf"m/1 was made elsewhere: .*from version {version}"):
        opened(content, "m/1", accepted(content))


@pytest.mark.parametrize("dump", [joblib_bytes, skops.io.dumps], ids=["joblib", "skops"])
def test_the_file_of_another_patch_level_is_opened_with_a_word_in_the_log(monkeypatch, caplog, dump):
    content = made_by(f"{MAJOR}.{MINOR}.{PATCH + 1}", monkeypatch, dump)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert opened(content, "m/1", accepted(content)).predict(INPUTS).any()
    assert "another patch level of scikit-learn: model=m/1" in caplog.text


def accepted(content):
    return skops.io.get_untrusted_types(data=content) if is_skops(content) else ()


class Warns:
    """A class with something to say when it is made."""

    def __init__(self):
        self.name = "warns"

    def __setstate__(self, state):
        warnings.warn("I am deprecated", FutureWarning, stacklevel=1)


def test_other_warnings_are_passed_on():
    content = joblib_bytes(Warns())
    with pytest.warns(FutureWarning, match="I am deprecated"):
        opened(content, "m/1")


def test_a_class_that_another_scikit_learn_had_is_put_down_to_the_other_version(monkeypatch):
    content = made_by("1.5.2", monkeypatch, lambda model: joblib_bytes([model, Warns()]))
    content = content.replace(b"Warns", b"Gone_")
    with pytest.raises(EnvironmentDiffers, match=r"from version 1\.5\.2"):
        opened(content, "m/1")


def test_a_class_that_is_not_here_is_named():
    content = joblib_bytes(Warns()).replace(b"Warns", b"Gone_")
    with pytest.raises(ModelUnreadable, match=r"AttributeError: .*Gone_.*nothing was written"):
        opened(content, "m/1")
