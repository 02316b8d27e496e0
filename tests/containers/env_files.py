"""Two env files for one docker-compose.yml: production, and staging that reads production's source."""

from __future__ import annotations

import os
import secrets
from base64 import b64encode
from typing import TYPE_CHECKING

from containers.engine import Failed, run
from containers.project import ROOT

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = "localhost/plantao-test:latest"
IMAGE_USER = 50000


def env_files(folder: Path, base: str, postgres: str) -> tuple[Path, Path]:
    """Fill in .env.example twice, for production and for staging."""
    models = folder / "models"
    models.mkdir()
    os.chown(models, IMAGE_USER, IMAGE_USER)
    folder.chmod(0o755)
    code_version = run("git", "-C", str(ROOT), "describe", "--always", "--dirty").strip()
    both = {
        "PLANTAO_IMAGE": IMAGE,
        "PLANTAO_CODE_VERSION": code_version,
        "PLANTAO_MODELS": str(models),
        "BASE_IMAGE": base,
        "POSTGRES_IMAGE": postgres,
    }
    client, own, reader = secrets.token_hex(24), secrets.token_hex(24), secrets.token_hex(24)
    production = {
        "COMPOSE_PROJECT_NAME": "plantao-test-production",
        "COMPOSE_PROFILES": "demo",
        "AIRFLOW_PORT": "18080",
        "AIRFLOW_BASE_URL": "http://localhost:18080",
        "POSTGRES_PASSWORD": client,
        "AIRFLOW_CONN_CLIENT_DB": f"postgres://client:{client}@client:5432/client",
    }
    staging = {
        "COMPOSE_PROJECT_NAME": "plantao-test-staging",
        "COMPOSE_PROFILES": "results",
        "AIRFLOW_PORT": "18081",
        "AIRFLOW_BASE_URL": "http://localhost:18081",
        "POSTGRES_PASSWORD": own,
        "AIRFLOW_CONN_CLIENT_DB": f"postgres://staging:{reader}@plantao-test-production_client_1:5432/client",
        "AIRFLOW_CONN_RESULTS_DB": f"postgres://results:{own}@results:5432/results",
    }
    return (
        fill_in(folder / "production.env", both | production),
        fill_in(folder / "staging.env", both | staging),
    )


def fill_in(path: Path, given: dict[str, str]) -> Path:
    """Write .env.example with what is given, and secrets of its own for the rest that must not be empty."""
    made = {
        "AIRFLOW_FERNET_KEY": b64encode(secrets.token_bytes(32)).decode(),
        "AIRFLOW_JWT_SECRET": secrets.token_hex(48),
        "AIRFLOW_SECRET_KEY": secrets.token_hex(24),
        "AIRFLOW_ADMIN_PASSWORD": secrets.token_urlsafe(12),
    }
    values, lines = given | made, []
    for line in (ROOT / ".env.example").read_text(encoding="utf-8").splitlines():
        name, separator, default = line.partition("=")
        known = separator and not line.startswith("#")
        lines.append(f"{name}={values.pop(name, default)}" if known else line)
    if values:
        message = f".env.example does not know {', '.join(values)}"
        raise Failed(message)
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
