"""The rules of the house. Each says, in two lines, what happens without it."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from plantao import errors
from plantao.config.job import Job
from plantao.config.job_file import SECTIONS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "include" / "plantao"
MODULES = sorted(PACKAGE.rglob("*.py"))
STEPS = ("extract", "validate", "score", "load", "measure", "alert")

# Who may open sessions, and who may send.
DRIVERS = {
    f"postgres/{name}.py"
    for name in ("session", "server", "login", "adbc_databases", "snapshot", "driver_errors", "embedded")
}
SLACK = "alert/slack.py"
AIRFLOW = "airflow"
# What is no part of the flow of a run's data, and therefore no step.
NOT_EMPTY = {"plantao", "airflow", "cli"}  # the version, what a DAG file imports, the commands
LOOSE = {"__main__.py", "errors.py", "log.py", "runtime.py", "window.py"}


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
    """Whether a module says that it is: values in, values out."""
    return "Pure." in (ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or "")


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_only_one_package_imports_airflow(module):
    # Otherwise the command line, the watchdog and every test would need Airflow, and die with it.
    found = [name for name in imports(module, at_run_time=False) if name.split(".")[0] == "airflow"]
    assert not found or name_of(module).split("/")[0] == AIRFLOW


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_only_the_sessions_know_the_drivers(module):
    # Otherwise a wait without a deadline slips in somewhere. Quoting (psycopg2.sql) and the name of an error are
    # no sessions, so these may be imported.
    drivers = {name for name in imports(module) if re.match(r"(psycopg2|adbc_driver\w*)(\.|$)", name)}
    allowed = {name for name in drivers if name.startswith(("psycopg2.sql", "psycopg2.errors"))}
    assert not drivers - allowed or name_of(module) in DRIVERS


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_only_one_module_knows_slack(module):
    # Otherwise a token is logged by somebody, or a message sent that nobody counts.
    assert not [name for name in imports(module) if name.split(".")[0] == "slack_sdk"] or name_of(module) == SLACK


# What a module cannot import or call and still be values in, values out.
WORLD = {
    *(
        "adbc_driver_postgresql",
        "airflow",
        "ctypes",
        "fsspec",
        "joblib",
        "os",
        "requests",
        "secrets",
        "shutil",
        "signal",
    ),
    *("slack_sdk", "socket", "sqlalchemy", "subprocess", "sys", "tempfile", "threading", "time", "typer", "urllib"),
}
WORLDLY_CALL = re.compile(
    r"\b(?:datetime\.now|date\.today|perf_counter|open|print)\(|\.(?:read_text|write_text|read_bytes|execute)\("
)


def worldly(module: Path) -> set[str]:
    """Return what makes a module impure, besides other modules that are."""
    names = {name.split(".")[0] for name in imports(module)} & WORLD
    return names | set(WORLDLY_CALL.findall(module.read_text()))


def impure_ones(module: Path) -> set[str]:
    """Return the modules of ours that a module imports at run time and that are not pure."""
    found = [PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py") for name in imports(module)]
    ours = [path for path in found if path.is_relative_to(PACKAGE) and path.is_file()]
    return {name_of(path) for path in ours if not is_pure(path)}


@pytest.mark.parametrize("module", [m for m in MODULES if not m.name.startswith("__")], ids=name_of)
def test_a_module_is_marked_pure_just_when_it_touches_nothing(module):
    # Otherwise the interesting cases can only be tested with a server, a clock and luck; and a mark that is lost
    # would take the check with it.
    assert is_pure(module) == (not worldly(module) and not impure_ones(module)), (worldly(module), impure_ones(module))


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_module_has_one_reason_and_fits_into_a_head(module):
    # Above about 300 lines it is two modules.
    assert len(module.read_text().splitlines()) <= 340
    vague = {"utils", "helpers", "common", "core", "base", "manager", "misc", "tools"}
    assert module.stem not in vague


def test_steps_and_sections_are_the_same_six_words():
    # On-call reads "load" in a message and must find the same word in the log, the folder and the job file.
    assert set(STEPS) == SECTIONS
    fields = [field.alias or name for name, field in Job.model_fields.items()]
    assert [name for name in fields if name in SECTIONS] == list(STEPS)
    assert all((PACKAGE / step).is_dir() for step in STEPS)
    assert [word for word in STEPS if word in (PACKAGE / "__init__.py").read_text()] == list(STEPS)


def test_every_package_is_a_layer_and_few_modules_are_loose():
    # A stranger looks for the fault in the listing; `lint-imports` keeps the order of the layers.
    import tomllib

    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {name for layer in contracts[0]["layers"] for name in layer.split(" | ")}
    packages = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    loose = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert loose == LOOSE
    assert layers == packages | {name.removesuffix(".py") for name in loose}


def test_packages_export_nothing_of_their_own():
    # Re-exports make a name findable in two places and import cycles likely.
    for folder in [path.parent for path in PACKAGE.rglob("__init__.py") if path.parent.name not in NOT_EMPTY]:
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
