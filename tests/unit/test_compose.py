"""The production shape: the rules that docker-compose.yml and the Dockerfile must keep, read from the files."""

from __future__ import annotations

import copy
import re
from importlib.util import find_spec
from pathlib import Path

import podman_compose
import pytest
import yaml

from demo.stack import PRELOAD

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load(TEXT)
SERVICES = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")

PARTS = {"api-server", "scheduler", "dag-processor", "triggerer"}
ONE_SHOT = {"init", "demo"}
DATABASES = {"postgres", "client", "results"}
WATCHDOG = {"watchdog"}
OURS = PARTS | ONE_SHOT | WATCHDOG
SECRETS = {
    "POSTGRES_PASSWORD",
    "AIRFLOW_FERNET_KEY",
    "AIRFLOW_JWT_SECRET",
    "AIRFLOW_SECRET_KEY",
    "AIRFLOW_ADMIN_PASSWORD",
    "AIRFLOW_CONN_CLIENT_DB",
}
# Read by Compose itself.
OF_COMPOSE = {"COMPOSE_PROFILES"}


def variables() -> dict[str, set[str]]:
    """Return what stands behind each variable's name, for instance {"AIRFLOW_PORT": {":-8080"}}."""
    found: dict[str, set[str]] = {}
    for name, rest in re.findall(r"(?<!\$)\$\{([A-Z_]+)([^}]*)\}", TEXT):
        found.setdefault(name, set()).add(rest)
    return found


def examples() -> dict[str, str]:
    return dict(re.findall(r"^([A-Z_]+)=(.*)$", EXAMPLE, flags=re.MULTILINE))


def filled_in(**values: str) -> dict:
    """Return the compose file as it is under an env file that sets `values` and the secrets."""
    env = {**examples(), **{name: f"a secret {name}" for name in SECRETS}, **values}
    assert set(env) == set(examples())
    return podman_compose.rec_subs(copy.deepcopy(COMPOSE), env)


def test_the_services_are_those_of_the_production_shape():
    assert set(SERVICES) == OURS | DATABASES


def test_only_the_demo_and_a_place_for_results_need_a_profile():
    profiles = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    assert profiles == {"client": ["demo"], "demo": ["demo"], "results": ["results"]}


@pytest.mark.parametrize("name", sorted(PARTS | DATABASES | WATCHDOG))
def test_what_runs_for_long_is_watched_and_comes_back(name):
    assert SERVICES[name]["healthcheck"]["test"]
    assert SERVICES[name]["restart"] == "unless-stopped"
    assert SERVICES[name]["stop_grace_period"]


@pytest.mark.parametrize("name", sorted(ONE_SHOT))
def test_what_runs_once_is_not_started_again(name):
    assert SERVICES[name]["restart"] == "no"


@pytest.mark.parametrize("name", sorted(PARTS | WATCHDOG))
def test_no_part_of_airflow_starts_before_the_tables_are_there(name):
    assert SERVICES[name]["depends_on"]["init"] == {"condition": "service_completed_successfully"}


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_services_run_one_image(name):
    assert SERVICES[name]["image"] == SERVICES["init"]["image"]
    assert "user" not in SERVICES[name]  # the image's own, which is not root


@pytest.mark.parametrize("name", sorted(DATABASES))
def test_a_database_runs_as_its_own_user_from_the_start(name):
    # The official image starts as root unless told otherwise, and then needs rights to become another.
    assert SERVICES[name]["user"] == "postgres"


@pytest.mark.parametrize("name", sorted(OURS | DATABASES))
def test_every_service_is_confined(name):
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]
    assert SERVICES[name]["read_only"] is True


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_a_secret_has_no_default_and_its_absence_says_what_to_do(name):
    # A default that is written here is known to everybody.
    assert variables()[name]
    assert all(rest.startswith(":?set it in .env") for rest in variables()[name])
    assert examples()[name] == ""


def test_every_variable_is_explained_and_has_the_default_that_is_shown():
    assert set(variables()) == set(examples()) - OF_COMPOSE
    for name, rests in variables().items():
        if name not in SECRETS:
            assert rests == {f":-{examples()[name]}"}, name
    explained = re.findall(r"^# .+\n([A-Z_]+)=", EXAMPLE, flags=re.MULTILINE)
    assert set(explained) == set(examples())


def test_ports_are_published_on_the_loopback_address_unless_somebody_asks():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api-server": ["${AIRFLOW_BIND:-127.0.0.1}:${AIRFLOW_PORT:-8080}:8080"]}


@pytest.mark.parametrize(
    ("connection", "needed"),
    [
        ("CLIENT_DB", {"init", "scheduler", "watchdog", "demo"}),
        ("RESULTS_DB", {"init", "scheduler", "watchdog"}),
        ("SLACK", {"init", "scheduler", "watchdog"}),
    ],
)
def test_the_password_of_a_connection_goes_only_where_it_is_needed(connection, needed):
    name = f"AIRFLOW_CONN_{connection}"
    assert {service for service, facts in SERVICES.items() if name in facts.get("environment", {})} == needed


def test_the_demo_can_never_fill_a_real_client():
    # It drops the tables that it fills.
    assert "@client:5432/client" in SERVICES["demo"]["environment"]["AIRFLOW_CONN_CLIENT_DB"]


def test_staging_is_production_but_for_its_name_its_addresses_and_its_secrets():
    staging = {
        "COMPOSE_PROJECT_NAME": "staging",
        "COMPOSE_PROFILES": "results",
        "AIRFLOW_PORT": "8081",
        "AIRFLOW_BASE_URL": "http://localhost:8081",
        "AIRFLOW_CONN_RESULTS_DB": "postgres://results:x@results:5432/results",
        **dict.fromkeys(SECRETS, "another"),
    }
    here, there = leaves(filled_in()), leaves(filled_in(**staging))
    assert here.keys() == there.keys()
    assert {path[-1] for path in here if here[path] != there[path]} == {
        "name",
        "ports",
        "POSTGRES_PASSWORD",
        "AIRFLOW_ADMIN_PASSWORD",
        "AIRFLOW_CONN_CLIENT_DB",
        "AIRFLOW_CONN_RESULTS_DB",
        "AIRFLOW__API__BASE_URL",
        "AIRFLOW__API__SECRET_KEY",
        "AIRFLOW__API_AUTH__JWT_SECRET",
        "AIRFLOW__CORE__FERNET_KEY",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    }


def test_staging_and_production_can_share_one_store_of_models():
    services = filled_in(PLANTAO_MODELS="/srv/plantao/models")["services"]
    stores = {name: s["volumes"] for name, s in services.items() if any("models" in v for v in s.get("volumes", []))}
    assert stores.keys() == {"init", "scheduler", "demo"}
    assert all(any(v.startswith("/srv/plantao/models:/models") for v in volumes) for volumes in stores.values())


def leaves(value: object, *path: str) -> dict[tuple[str, ...], object]:
    """Return every single value of a tree, by the keys that lead to it."""
    if not isinstance(value, dict):
        return {path: value}
    return {at: leaf for key, inner in value.items() for at, leaf in leaves(inner, *path, key).items()}


def test_the_api_servers_health_is_read_and_not_only_asked_for():
    # The page answers 200 whatever it has to say.
    assert '["metadatabase"]["status"] != "healthy"' in SERVICES["api-server"]["healthcheck"]["test"][-1]


def test_the_watchdog_depends_on_nothing_of_airflow_but_its_health_page():
    # Otherwise it would fall silent together with what it watches.
    service = SERVICES["watchdog"]
    assert set(service["depends_on"]) == {"init"}
    of_airflow = [name for name in service["environment"] if name.startswith("AIRFLOW__")]
    assert of_airflow == ["AIRFLOW__API__BASE_URL"]  # for the links in its messages
    assert service["environment"]["PLANTAO_AIRFLOW_URL"] == "http://api-server:8080"
    assert service["environment"]["PLANTAO_WATCH_FILE"] in service["healthcheck"]["test"][-1]


@pytest.mark.parametrize("name", sorted(PARTS - {"api-server"}))
def test_the_other_parts_are_asked_for_their_own_sign_of_life(name):
    job = {"scheduler": "SchedulerJob", "dag-processor": "DagProcessorJob", "triggerer": "TriggererJob"}[name]
    assert f"--job-type {job} --hostname" in SERVICES[name]["healthcheck"]["test"][-1]


def test_every_airflow_setting_is_one():
    # A misspelt one is ignored without a word.
    from airflow.configuration import conf

    for service in SERVICES.values():
        for name in service.get("environment", {}):
            if name.startswith("AIRFLOW__"):
                section, key = name.removeprefix("AIRFLOW__").lower().split("__")
                assert key in conf.configuration_description[section]["options"], name


def test_tasks_are_forked_with_the_modules_that_they_have_in_the_demo():
    loaded = SERVICES["scheduler"]["environment"]["AIRFLOW__CORE__MP_FORKSERVER_PRELOAD"]
    assert loaded == PRELOAD
    # Python passes over a module that it does not find. (Looking for one inside of Airflow would import Airflow.)
    for package, *rest in (name.split(".") for name in loaded.split(",")):
        (folder,) = find_spec(package).submodule_search_locations
        module = Path(folder, *rest)
        assert module.is_dir() or module.with_suffix(".py").is_file(), module


def test_every_volume_is_declared_and_used():
    used = {
        re.split(":", volume)[0]
        for service in filled_in()["services"].values()
        for volume in service.get("volumes", [])
        if not volume.startswith((".", "/"))
    }
    assert used == set(COMPOSE["volumes"])


def test_tasks_may_read_models_but_not_change_them():
    assert "models:/models:ro" in filled_in()["services"]["scheduler"]["volumes"]


def test_whoever_has_the_models_knows_where_they_are():
    having = {name for name, s in SERVICES.items() if any(":/models" in v for v in s.get("volumes", []))}
    assert having == {"init", "scheduler", "demo"}
    assert {SERVICES[name]["environment"]["PLANTAO_MODEL_STORE"] for name in having} == {
        "${PLANTAO_MODEL_STORE:-/models}"
    }


def test_the_image_can_be_built_on_another_base():
    assert re.search(r"^ARG BASE_IMAGE=\S+\nFROM \$\{BASE_IMAGE\}$", DOCKERFILE, flags=re.MULTILINE)
    assert "BASE_IMAGE" in SERVICES["init"]["build"]["args"]


def test_the_image_is_made_from_the_lock_and_does_not_run_as_root():
    assert "--require-hashes" in DOCKERFILE
    assert re.findall(r"^USER (.*)$", DOCKERFILE, flags=re.MULTILINE)[-1] == "50000:50000"


def test_a_change_of_code_does_not_install_the_packages_again():
    assert DOCKERFILE.index("--require-hashes") < DOCKERFILE.index("COPY dags")


def test_nothing_gets_into_the_image_that_is_not_named():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    assert "!.env" not in lines
