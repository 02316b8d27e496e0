"""How much time does it save to ask trees for rows in the order of their splits? By kind of ensemble, as registered.

    python tests/bench/trees.py

A batch of 26,000 rows of the bench, encoded, is given to each ensemble as scikit-learn makes it by default, and to a
copy that sorts the rows and deals them to threads. Both answer in turn; printed are medians of 15 and whether all bits
are the same.
"""

from __future__ import annotations

import copy
import re
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "include"))

from ground import cores, features, label, machine, say, tree

from plantao.config import settings

ROWS = 26_000


def ensembles():
    """Return the kinds that are measured, not fitted."""
    from sklearn import ensemble

    return (
        ensemble.HistGradientBoostingClassifier(random_state=0),
        ensemble.HistGradientBoostingRegressor(random_state=0),
        ensemble.GradientBoostingClassifier(random_state=0),
        ensemble.RandomForestClassifier(random_state=0),
        ensemble.RandomForestClassifier(max_depth=8, random_state=0),
        ensemble.ExtraTreesClassifier(max_depth=8, random_state=0),
    )


def main() -> None:
    """Print a line for each ensemble."""
    settings.let_threads_sleep()  # as in a run, before scikit-learn is loaded
    from plantao.score.fast_trees import sort_rows
    from plantao.score.loader import bounded_threads

    rng = np.random.default_rng(0)
    training, batch = features(rng, 30_000), features(rng, ROWS)
    encoder = tree(None).fit(training, label(training))[:-1]
    rows, known = (np.nan_to_num(encoder.transform(frame)) for frame in (batch, training))
    say(f"{ROWS} rows, {machine()}")
    with bounded_threads(cores()):
        for plain in ensembles():
            plain.fit(known, label(training))
            ordered = copy.deepcopy(plain)
            sort_rows(ordered)
            answers(ordered, rows[:20])  # as golden rows
            seconds: dict[int, list[float]] = {0: [], 1: []}
            found = {}
            for _ in range(15):
                for i, model in enumerate((plain, ordered)):
                    began = time.perf_counter()
                    found[i] = answers(model, rows)
                    seconds[i].append(time.perf_counter() - began)
            before, after = (statistics.median(times) for times in seconds.values())
            same = "the same bits" if found[0].tobytes() == found[1].tobytes() else "OTHER BITS"
            name = re.sub(r",? *random_state=0", "", str(plain))
            say(f"{name:46} {before * 1e3:6.1f} ms -> {after * 1e3:6.1f} ms, {after / before:.2f}, {same}")


def answers(model, rows):
    return model.predict_proba(rows) if hasattr(model, "predict_proba") else model.predict(rows)


if __name__ == "__main__":
    main()
