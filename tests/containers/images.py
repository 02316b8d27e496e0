"""Images without a registry: Debian's packages make a base for ours, and a PostgreSQL.

Where a registry can be reached, BASE_IMAGE and POSTGRES_IMAGE name images of it instead, as they do in an env file.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from containers.engine import podman, require, run

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
ENTRYPOINT = HERE / "postgres-entrypoint.sh"
SOURCES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources")
NETWORK_SETTINGS = ("index-url", "extra-index-url", "proxy", "cert", "client-cert", "trusted-host", "default-timeout")


def base() -> str:
    """Return the image that ours is built on."""
    return os.environ.get("BASE_IMAGE") or _debian("base", ["python3", "python3-venv", "ca-certificates"], [], [])


def postgres() -> str:
    """Return an image of PostgreSQL that takes the variables that the official one takes."""
    hooks = [
        'chroot "$1" sh -c "pg_dropcluster $(ls "$1/etc/postgresql") main"',
        'chroot "$1" install --directory --owner=postgres --group=postgres --mode=700 /var/lib/postgresql/data',
        f"upload {ENTRYPOINT} /usr/local/bin/docker-entrypoint.sh",
        'chmod 755 "$1/usr/local/bin/docker-entrypoint.sh"',
    ]
    changes = [
        "ENV PGDATA=/var/lib/postgresql/data",
        'ENTRYPOINT ["docker-entrypoint.sh"]',
        'CMD ["postgres"]',
        "STOPSIGNAL SIGINT",
        "VOLUME /var/lib/postgresql/data",
    ]
    return os.environ.get("POSTGRES_IMAGE") or _debian("postgres", ["postgresql"], hooks, changes)


def _debian(name: str, packages: list[str], hooks: list[str], changes: list[str]) -> str:
    """Return an image of this machine's Debian with some packages; it is made once, until the recipe changes."""
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    recipe = repr((suite, packages, hooks, changes, ENTRYPOINT.read_text()))
    image = f"localhost/plantao-test-{name}:{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if podman("images", "--quiet", image):
        return image
    require("mmdebstrap")
    print(f"making {image} from Debian's packages", flush=True)
    sources = [path for path in map(Path, SOURCES) if path.exists()]
    with tempfile.TemporaryDirectory() as folder:
        archive, options = Path(folder, "root.tar"), Path(folder, "apt.conf")
        # As this machine reaches the packages, proxies and all.
        options.write_text(run("apt-config", "dump", "--format", '%f "%v";%n', "Acquire"))
        run(
            *("mmdebstrap", "--variant=minbase", f"--include={','.join(packages)}", f"--aptopt={options}"),
            *(f"--customize-hook={hook}" for hook in hooks),
            *(suite, str(archive), *map(str, sources)),
        )
        podman("import", "--quiet", *(f"--change={change}" for change in changes), str(archive), image)
    return image


@contextmanager
def pip_as_here() -> Iterator[list[str]]:
    """Lend a build this machine's way to the package index; what is lent does not stay in the image."""
    listed = subprocess.run(["python3", "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    settings = [line.partition("=") for line in listed.stdout.splitlines()]
    found = {}
    for level in ("global.", "user.", "site.", ":env:."):  # the later, the louder
        found |= {key.removeprefix(level): value.strip("'") for key, _, value in settings if key.startswith(level)}
    chosen = {key: value for key, value in found.items() if key in NETWORK_SETTINGS and "file:" not in value}
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write("\n".join(["[global]", *(f"{key} = {value}" for key, value in chosen.items())]))
        file.flush()
        lent = {file.name: "/etc/pip.conf", **{path: path for key, path in chosen.items() if key.endswith("cert")}}
        yield ["--network=host", *(f"--volume={there}:{inside}:ro" for there, inside in lent.items())]
