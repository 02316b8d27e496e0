"""The set-up: the locks are complete, everything is installed in one place, and a stale environment is remade.

uv is played by a script here; .ci/set-ups runs the real pip of every Python.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import debian_packages
import set_up

ROOT = Path(__file__).parents[2]
LOCKS = ["requirements.txt", "tests/requirements.txt"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


# --- the locks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_of_a_lock_is_pinned_and_hashed(lock):
    text = re.sub(r"^ *#.*\n", "", (ROOT / lock).read_text(), flags=re.MULTILINE)
    requirements = text.replace("\\\n", " ").splitlines()
    assert len(requirements) > 100
    for requirement in requirements:
        assert re.match(r"[\w.-]+==[\w.+!]+( ; [^#]+)? +--hash=sha256:[0-9a-f]{64}", requirement), requirement


def test_every_requirement_of_an_installed_package_is_installed():
    # The set-up installs without dependencies, so this fails when a lock lacks one.
    uv = Path(sys.prefix, "bin", "uv")
    checked = subprocess.run(
        [uv, "pip", "check", "--python", sys.executable], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


# --- one place each --------------------------------------------------------------------------------------------------


def test_the_makefile_installs_nothing_itself():
    recipes = "".join(line for line in MAKEFILE.splitlines(keepends=True) if line.startswith("\t"))
    assert not re.search(r"pip install|apt-get|-m venv|uv venv|ensurepip", recipes)
    assert recipes.count("include/set_up.py") == 1


def test_every_target_is_in_the_help():
    (named,) = re.findall(r"^\.PHONY: (help .*)$", MAKEFILE, flags=re.MULTILINE)
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = {word for line in shown.splitlines() for word in re.split(r"\s+", line.strip()) if word in named.split()}
    assert listed == set(named.split())


def test_debian_packages_are_named_in_their_list_only():
    packages = debian_packages.packages()
    assert {"redis-server", "postgresql", "chromium"} <= packages.keys()
    assert all(package.programs and package.why for package in packages.values())
    installer = (ROOT / ".ci" / "run").read_text()
    assert "tests/debian_packages.py" in installer
    for name in packages:
        assert name not in installer + MAKEFILE


def test_every_listed_package_is_needed_by_a_test():
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for name in debian_packages.packages():
        assert f'need("{name}")' in tests


def test_skipped_tests_are_listed_once_with_the_command():
    reasons = ["Skipped: needs the Debian package chromium"] * 3 + [
        "Skipped: needs the Debian package postgresql",
        "other",
    ]
    lines = debian_packages.summary(reasons)
    assert sum("chromium" in line for line in lines[:-1]) == 1
    assert "(3 skipped)" in lines[1]
    assert lines[-1].removeprefix("  ").removeprefix("sudo ") == "apt-get install chromium postgresql"
    assert debian_packages.summary(["Skipped: other"]) == []


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_missing_package_skips_a_test_and_fails_it_in_ci(monkeypatch, ci, outcome):
    missing = debian_packages.Package("nothing", ("/nowhere/*/nothing", "no-such-program"), "")
    monkeypatch.setattr(debian_packages, "packages", lambda: {"nothing": missing})
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="needs the Debian package nothing"):
        debian_packages.need("nothing")


# --- decisions -------------------------------------------------------------------------------------------------------

MADE = set_up.Record("/home/me/plantao", "/usr", "3.11", {})


@pytest.mark.parametrize(
    ("record", "runs", "reason"),
    [
        (MADE, True, None),
        (None, True, "did not finish"),
        (replace(MADE, folder="/home/me/old"), True, "made in /home/me/old"),
        (replace(MADE, version="3.12"), True, "made for Python 3.12"),
        (replace(MADE, python="/opt/python"), True, "Python in /opt/python"),
        (MADE, False, "Python is gone"),
    ],
)
def test_an_environment_stays_only_where_it_fits(record, runs, reason):
    found = set_up.reason_to_start_over(record, MADE, runs=runs)
    assert (found is None) == (reason is None)
    assert reason is None or reason in found


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (
            "NewConnectionError('…: Failed to establish a new connection\nERROR: … (from versions: none)",
            "cannot be reached",
        ),
        (
            "error: Failed to fetch: x\n  cause: tcp connect error\n  cause: Connection refused (os error 111)",
            "be reached",
        ),
        ("  cause: dns error\n  cause: failed to lookup address information: Name or service not known", "be reached"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "differs from the lock"),
        ("error: Failed to download `attrs`\n  cause: Hash mismatch for `attrs==25.4.0`", "differs from the lock"),
        ("ERROR: Could not find … (from versions: 15.0, 16.0)\nERROR: No matching distribution found for x", "lacks a"),
        ("  cause: Because there is no version of attrs==99.4.0 and you require attrs", "lacks a package"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("The virtual environment was not created successfully because ensurepip is not available.", "module venv"),
        ("[Errno 13] Permission denied: '/opt/plantao/.venv'", "cannot be written"),
        ("something else", "not a known one"),
    ],
)
def test_a_failure_is_explained(output, words):
    assert words in set_up.cause(output).words


# --- the whole, with a script that plays uv --------------------------------------------------------------------------

UV = """#!/bin/sh
case "$1 $2" in
  "--version ") echo "uv 0" ;;
  "cache dir") echo "${TMPDIR:-/tmp}" ;;
  "pip install") echo "$*" >> "$CALLS"; . "$BEHAVIOUR" ;;
esac
"""


class Clone:
    """A project with locks, and a uv that notes how it was called."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls, self.behaviour = folder / "x y" / "plantão é", folder / "calls", folder / "behaviour"
        for name in ("include/set_up.py", "Makefile", "pyproject.toml", *LOCKS):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.folder / name)
        uv = folder / "bin" / "uv"
        uv.parent.mkdir()
        uv.write_text(UV)
        uv.chmod(0o755)
        self.behaves("")

    def behaves(self, script: str) -> None:
        self.behaviour.write_text(script)

    def start(self, target: str = "demo") -> subprocess.Popen[str]:
        self.calls.write_text("")
        bin_folder = self.behaviour.with_name("bin")
        variables = {
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "CALLS": str(self.calls),
            "BEHAVIOUR": str(self.behaviour),
        }
        return subprocess.Popen(
            ["make", f"PYTHON={Path(sys.base_prefix, 'bin', 'python3')}", f".venv/{target}"],
            cwd=self.folder,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def make(self, target: str = "demo") -> tuple[int, str]:
        process = self.start(target)
        output, _ = process.communicate(timeout=900)
        return process.returncode, output

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines()


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path)


def test_only_what_is_stale_is_installed(clone):
    assert clone.make("test")[0] == 0
    locks, project = clone.called()
    assert "--no-deps -r requirements.txt -r tests/requirements.txt" in locks
    assert "--compile-bytecode" in locks
    assert project.endswith("-e .")
    assert (clone.make("demo"), clone.called()) == ((0, ""), [])

    with (clone.folder / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    assert clone.make("demo")[0] == 0
    assert len(clone.called()) == 1

    with (clone.folder / "requirements.txt").open("a") as file:
        file.write("# changed\n")
    assert "from scratch" not in clone.make("demo")[1]
    assert "-r requirements.txt" in clone.called()[0]
    assert clone.make("test")[0] == 0
    assert "-r tests/requirements.txt" in clone.called()[0]


def test_a_moved_folder_gets_a_new_environment(clone):
    assert clone.make()[0] == 0
    moved = clone.folder.with_name("moved")
    clone.folder = clone.folder.rename(moved)
    (moved / ".venv" / "old").touch()
    status, output = clone.make()
    assert (status, "from scratch, because it was made in" in output) == (0, True)
    assert not (moved / ".venv" / "old").exists()
    assert json.loads((moved / ".venv" / "set-up.json").read_text())["folder"] == str(moved)


def test_an_interrupted_set_up_starts_from_scratch(clone):
    clone.behaves("sleep 60")
    process = clone.start()
    for _ in range(600):
        if clone.called():
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=900)
    assert process.returncode != 0
    assert "The set-up was interrupted" in output
    assert "Traceback" not in output
    clone.behaves("")
    status, output = clone.make()
    assert (status, "from scratch, because the last set-up did not finish" in output) == (0, True)


def test_an_unreachable_index_is_named_and_leaves_what_worked(clone):
    assert clone.make("demo")[0] == 0
    clone.behaves("echo 'error: Failed to fetch: x'; echo '  cause: tcp connect error'; exit 2")
    status, output = clone.make("test")
    assert status != 0
    assert "The package index cannot be reached.\n  error: Failed to fetch: x" in output
    assert "Next: check the network" in output
    assert "Traceback" not in output
    assert clone.make("demo") == (0, "")


def test_a_python_that_does_not_fit_is_refused(clone, tmp_path):
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = subprocess.run(
        ["make", f"PYTHON={old}", "demo"], cwd=clone.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "needs Python 3.11, 3.12 or 3.13" in done.stderr
    assert "make PYTHON=" in done.stderr
