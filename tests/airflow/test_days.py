"""The four bad days are acted out as a stranger would, and each ends with its recovery."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
# What on-call has read by the end of the day: the trouble, and that it is over.
READ = {
    "day0": ("The model was refused", "Runs work again"),
    "day1": ("Predictions are late", "no run was ever started for it", "Predictions are complete again"),
    "day2": ("A version was promoted against the gate", "The source has changed", "Runs work again"),
    "day60": ("The model has degraded", "data:image/png;base64,", "A degradation is over"),
}


def demo(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return subprocess.run(
        [sys.executable, "-m", "plantao", "demo", *arguments],
        env={**environment, "PLANTAO_HOME": str(home), "PYTHONPATH": str(ROOT / "include")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("day", READ)
def test_a_day_is_acted_out_and_heals(tmp_path, day):
    done = demo(tmp_path, day)
    assert done.returncode == 0, done.stdout + done.stderr
    home = tmp_path / ".plantao" / "days" / day
    page = (home / "slack.html").read_text(encoding="utf-8")
    assert [text for text in READ[day] if text not in page] == []
    assert f"What was posted, as Slack would show it: {home / 'slack.html'}" in done.stdout
    assert not [one for one in psutil.process_iter(["cmdline"]) if str(home) in " ".join(one.info["cmdline"] or ())]


def test_a_day_that_there_is_not_is_refused_in_words(tmp_path):
    done = demo(tmp_path, "day3")
    assert done.returncode == 2
    assert "'day3' is none of the days; there are day0, day1, day2, day60." in done.stderr
