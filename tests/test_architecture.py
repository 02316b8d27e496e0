"""The rules of the house. Each says, in two lines, what happens without it."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from plantao import errors
from plantao.job import Job
from plantao.job_file import SECTIONS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "include" / "plantao"
MODULES = sorted(PACKAGE.rglob("*.py"))
STEPS = ("extract", "validate", "score", "load", "measure", "alert")

# Who may touch the world, and how. Everything that is not listed is pure: values in, values out.
DRIVER = {"database.py", "embedded.py"}
SLACK = "alert/send/slack.py"
READS_AND_WRITES = {
    *(
        "__main__.py",
        "account.py",
        "attempt.py",
        "versions/challengers.py",
        "versions/in_parts.py",
        "closing.py",
        "versions/comparison.py",
        "versions/difference.py",
        "embedded.py",
        "job_file.py",
        "locks.py",
        "log.py",
        "origin.py",
        "parts.py",
        "place.py",
        "versions/promotion.py",
        "fan_out.py",
        "reconcile.py",
        "publishing.py",
        "run.py",
        "settings.py",
        "versions/standing.py",
    ),
    *("address.py", "declared.py", "ledger.py", "database.py", "log_table.py", "memory.py", "waiting.py"),
    *("cli", "schema/migrate.py"),
    *("checks/connection.py", "checks/environment.py", "checks/machine.py", "checks/of_job.py", "checks/page.py"),
    *("checks/rights.py", "checks/sample.py"),
    *("extract/courtesy.py", "extract/read.py", "extract/spool.py", "extract/standby.py"),
    *(
        "alert/send/composing.py",
        "alert/send/delivery.py",
        "alert/incidents.py",
        "alert/outbox.py",
        "alert/send/planning.py",
    ),
    *("alert/send/everywhere.py", "alert/send/picture.py"),
    "score/gate.py",
    *(
        "alert/watch/draining.py",
        "alert/watch/facts.py",
        "alert/watch/outages.py",
        "alert/watch/outside.py",
        "alert/watch/signs.py",
    ),
    *("alert/failure.py", "alert/from_airflow.py", "alert/watch/watchdog.py"),
    *("score/model_file.py", "score/model_store.py", "score/register.py", "score/registry.py"),
    *("score/bucket.py", "score/environment.py", "score/folder.py", "score/model_cache.py", "score/tree_order.py"),
    *(
        "load/part.py",
        "load/rejects.py",
        "load/write.py",
        "measure/metrics/history.py",
        "measure/count/state.py",
        "measure/count/recount.py",
        "measure/lanes/run_checks.py",
        "measure/data_quality.py",
        "measure/lanes/drifting.py",
        "measure/measuring.py",
        "measure/lanes/performance.py",
        "measure/count/answered.py",
        "measure/rebase.py",
        "measure/records.py",
        "measure/report/read.py",
        "alert/send/slack.py",
    ),
    *("measure/metrics/objective_sql.py", "measure/outcome/copy.py", "measure/outcome/outcomes.py"),
}


def name_of(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


def imports(module: Path, *, at_run_time: bool = True) -> set[str]:
    """Return the dotted names a module imports; those for the type checker alone only on request."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    skipped = set()
    if at_run_time:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
                skipped |= {id(child) for statement in node.body for child in ast.walk(statement)}
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def is_pure(module: Path) -> bool:
    name = name_of(module)
    return name not in READS_AND_WRITES and name.split("/")[0] not in READS_AND_WRITES


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_nothing_in_the_package_imports_airflow(module):
    # Otherwise the command line, the watchdog and every test would need Airflow, and die with it.
    assert not [name for name in imports(module, at_run_time=False) if name.split(".")[0] == "airflow"]


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_only_one_module_knows_the_drivers(module):
    # Otherwise a wait without a deadline slips in somewhere. Quoting (psycopg2.sql) and the name of an error are
    # no sessions, so these may be imported.
    drivers = {name for name in imports(module) if re.match(r"(psycopg2|adbc_driver\w*)(\.|$)", name)}
    allowed = {name for name in drivers if name.startswith(("psycopg2.sql", "psycopg2.errors"))}
    assert not drivers - allowed or name_of(module) in DRIVER


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_only_one_module_knows_slack(module):
    # Otherwise a token is logged by somebody, or a message sent that nobody counts.
    assert not [name for name in imports(module) if name.split(".")[0] == "slack_sdk"] or name_of(module) == SLACK


@pytest.mark.parametrize("module", [m for m in MODULES if is_pure(m)], ids=name_of)
def test_a_pure_module_neither_touches_the_world_nor_asks_the_time(module):
    # Otherwise the interesting cases can only be tested with a server, a clock and luck.
    worldly = {"os", "subprocess", "socket", "shutil", "tempfile", "time", "urllib", "requests", "threading"}
    allowed = {"plantao.log", "plantao.place", "plantao.database"}
    found = {name.split(".")[0] for name in imports(module)} & worldly
    assert not found
    calls = re.findall(r"\b(?:datetime\.now|date\.today|time\.time|perf_counter|open|print)\(", module.read_text())
    assert not calls
    impure = {
        name
        for name in imports(module)
        if name.startswith("plantao.") and name not in allowed
        for other in [PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py")]
        if other.is_file() and not is_pure(other)
    }
    assert not impure


def test_the_list_of_worldly_modules_names_only_what_exists():
    # Otherwise a renamed module is silently taken for pure, or a dead name stays.
    assert [name for name in READS_AND_WRITES | DRIVER if not (PACKAGE / name).exists()] == []


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_module_has_one_reason_and_fits_into_a_head(module):
    # Above about 300 lines it is two modules.
    assert len(module.read_text().splitlines()) <= 340
    vague = {"utils", "helpers", "common", "core", "base", "manager", "misc", "tools"}
    assert module.stem not in vague


def test_steps_sections_and_folders_are_the_same_six_words():
    # On-call reads "load" in a message and must find the same word in the log, the folder and the job file.
    assert set(STEPS) == SECTIONS
    fields = [field.alias or name for name, field in Job.model_fields.items()]
    assert [name for name in fields if name in SECTIONS] == list(STEPS)
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders - {"checks", "cli", "schema", "versions"} <= set(STEPS)
    assert [word for word in STEPS if word in (PACKAGE / "__init__.py").read_text()] == list(STEPS)


def test_step_folders_export_nothing_of_their_own():
    # Re-exports make a name findable in two places and import cycles likely.
    for folder in [PACKAGE / step for step in STEPS if (PACKAGE / step).is_dir()]:
        tree = ast.parse((folder / "__init__.py").read_text())
        assert len(tree.body) == 1
        assert ast.get_docstring(tree)


def every_error() -> list[type[errors.PlantaoError]]:
    found, waiting = [], [errors.PlantaoError]
    while waiting:
        cls = waiting.pop()
        found.append(cls)
        waiting += cls.__subclasses__()
    return found


@pytest.mark.parametrize("error", every_error(), ids=lambda e: e.__name__)
def test_every_error_is_an_instruction(error):
    # At three in the morning the message is the documentation.
    sentences = [part for part in re.split(r"(?<=[.;])\s", error.__doc__.strip()) if part]
    assert len(sentences) >= 2
    assert isinstance(error.permanent, bool)
    assert error.__name__ in errors.__doc__


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_blanket_excepts_stand_only_where_they_are_explained(module):
    # A swallowed error is a silent failure, the very thing this program is against.
    for number, line in enumerate(module.read_text().splitlines(), 1):
        if re.search(r"except (Base)?Exception\b", line):
            following = module.read_text().splitlines()[number : number + 6]
            explained = "#" in line
            raised = any(re.search(r"\braise\b", text) for text in following)
            assert explained or raised, f"{name_of(module)}:{number}"


@pytest.mark.parametrize(
    "path", [*(ROOT / "plugins").glob("*.py"), *(ROOT / "dags").glob("*.py")], ids=lambda p: p.stem
)
def test_no_dag_or_plugin_file_is_named_like_a_module(path):
    # Airflow registers such a file under its bare name; one called like a package makes every import of it fail.
    taken = sys.stdlib_module_names | {"plantao", "demo", "airflow", "pandas", "sklearn", "slack_sdk", "tests", "world"}
    assert path.stem not in taken
    assert not list((ROOT / ".venv").glob(f"lib/python*/site-packages/{path.stem}*"))


@pytest.mark.parametrize("path", sorted((ROOT / "dags").glob("*.py")), ids=lambda p: p.stem)
def test_a_dag_file_imports_no_data_library(path):
    # Every task's process parses the file again; pandas and scikit-learn there would cost each of them seconds.
    heavy = {"pandas", "sklearn", "numpy", "pyarrow", "sqlalchemy", "psycopg2"}
    assert not {name.split(".")[0] for name in imports(path)} & heavy


def test_the_wheel_contains_only_the_package():
    # Jobs, DAGs and the demo belong to a project, not to the library.
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert settings["packages"] == ["include/plantao"]


def test_every_ignored_rule_of_the_linter_has_its_reason():
    # Taste that is not explained decays.
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("ignore = [") : text.index("[tool.ruff.lint.pydocstyle]")]
    assert [line for line in block.splitlines() if re.match(r'\s+"[A-Z]+\d*"', line) and "#" not in line] == [
        '  "PLR0917",'
    ]


def test_no_file_names_a_package_registry():
    # The lock must serve behind any mirror.
    registry = re.compile(r"(pypi|pythonhosted)\.(org|io)", re.IGNORECASE)
    files = [ROOT / name for name in ("requirements.txt", "tests/requirements.txt", "Makefile", "pyproject.toml")]
    assert not [path.name for path in files if registry.search(path.read_text())]
