"""What `make release-check` runs, and which line of its output is the figure of each."""

from __future__ import annotations

import sys

from release.table import Check

PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
CHECKS = {
    "kills": Check(
        "1,000 kills at every instant", (sys.executable, "-m", "crash", "--kills", "1000"), r"\d+ rows: .* findings"
    ),
    "properties": Check(
        "properties, ten times the examples",
        (*PYTEST, "tests/properties"),
        r"\d+ passed",
        {"SHARE_OF_EXAMPLES": "10", "EXAMPLES": "100"},
    ),
    "celery": Check(
        "a Celery worker is killed",
        (*PYTEST, "-s", "tests/airflow/test_celery.py"),
        r"killed worker-.*",
        absent="skipped",
    ),
    "signals": Check(
        "an interrupted run leaves no process",
        (*PYTEST, "tests/crash/test_reaper.py"),
        r"\d+ passed",
        absent="skipped",
    ),
    **{
        day: Check(f"{day} as a stranger acts it out", (sys.executable, "-m", "plantao", "demo", day), figure)
        for day, figure in (
            ("day0", r"\d+ flights have their prediction"),
            ("day1", r"Of \d+ flights that left since.*"),
            ("day2", r"\d+ flights of both days .*"),
            ("day60", r"Three days later: .*"),
        )
    },
    "containers": Check(
        "docker-compose.yml, production and staging", (sys.executable, "-m", "containers"), r"the image has [^;]*"
    ),
    "alarms": Check(
        "tables of false and true alarms", (sys.executable, "tests/bench/alarms.py"), r"A column null, .* first day"
    ),
    "bench": Check("rows per second", (sys.executable, "tests/bench/bench.py"), r"a whole run reaches .*"),
    "bench-parts": Check(
        "a window in parts", (sys.executable, "tests/bench/parts.py"), r"[\d,]+ rows on \d+ workers .*"
    ),
    "bench-ledger": Check(
        "a ledger of a million runs", (sys.executable, "tests/bench/ledger.py"), r"years of history cost at most .*"
    ),
    "bench-scale": Check("ten million rows", (sys.executable, "tests/bench/scale.py"), r"peak memory .*"),
}
