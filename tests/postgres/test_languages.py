"""A server whose messages are in another language: its errors are of the same class, with the same cure."""

from __future__ import annotations

import shutil
import struct
import subprocess

import psycopg2
import pytest

import debian_packages
from plantao.config.address import from_parts
from plantao.errors import DatabaseUnavailable, PlantaoError, SourceRefused
from plantao.postgres import driver_errors, embedded, session
from plantao.postgres.replaced import whole_snapshot
from world import administer

LANGUAGES = {"fr_FR": "n'existe pas", "de_DE": "existiert nicht", "pt_BR": "não existe"}
# Debian's PostgreSQL has no Brazilian messages, so the catalogue is our own: the errors that these tests provoke.
BRAZILIAN = {
    "": "Content-Type: text/plain; charset=UTF-8\n",
    "ERROR": "ERRO",
    "FATAL": "FALHA",  # PostgreSQL's own catalogue leaves it; a severity in other words must not matter
    'database "%s" does not exist': 'banco de dados "%s" não existe',
    'password authentication failed for user "%s"': 'autenticação do tipo senha falhou para usuário "%s"',
    'role "%s" does not exist': 'role "%s" não existe',
    'permission denied for database "%s"': 'permissão negada para banco de dados "%s"',
    'too many connections for role "%s"': 'muitas conexões para role "%s"',
    "division by zero": "divisão por zero",
    "canceling statement due to statement timeout": "cancelando comando por causa do tempo de espera (timeout)",
    "terminating connection due to administrator command": "terminando conexão por comando do administrador",
}


def compiled(messages):
    """Return a catalogue in the form that `msgfmt` writes: a header, two tables of places, and the texts."""
    pairs = sorted((one.encode(), other.encode()) for one, other in messages.items())
    columns = [[pair[side] for pair in pairs] for side in (0, 1)]
    place, tables = 28 + 16 * len(pairs), []
    for text in (text for column in columns for text in column):
        tables += [len(text), place]
        place += len(text) + 1
    header = [0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, 28 + 16 * len(pairs)]
    numbers = struct.pack(f"<{7 + len(tables)}I", *header, *tables)
    return numbers + b"".join(text + b"\0" for column in columns for text in column)


def with_our_catalogue(programs, folder):
    """Return the programs of a copy that finds one more language: PostgreSQL looks beside its own program."""
    root = programs.parents[3]  # programs are in lib/postgresql/15/bin below it
    ours = folder / programs.relative_to(root)
    ours.mkdir(parents=True)
    for program in ("postgres", "initdb", "pg_ctl"):
        shutil.copy2(programs / program, ours)
    catalogues, version = folder / "share/locale", programs.parent.name
    (catalogues / "pt_BR/LC_MESSAGES").mkdir(parents=True)
    (catalogues / f"pt_BR/LC_MESSAGES/postgres-{version}.mo").write_bytes(compiled(BRAZILIAN))
    for name in ("fr", "de"):
        (catalogues / name).symlink_to(root / "share/locale" / name)
    for shared in (f"lib/postgresql/{version}/lib", f"share/postgresql/{version}"):
        (folder / shared).parent.mkdir(parents=True, exist_ok=True)
        (folder / shared).symlink_to(root / shared)
    return ours


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """A server of Debian's, which has the messages of many languages and one of ours, and knows their locales."""
    debian_packages.need("locales")
    debians = debian_packages.need("postgresql").resolve().parent
    programs = with_our_catalogue(debians, tmp_path_factory.mktemp("programs"))
    locales = tmp_path_factory.mktemp("locales")
    for name in LANGUAGES:
        subprocess.run(["localedef", "-i", name, "-f", "UTF-8", str(locales / f"{name}.UTF-8")], check=True)
    server = embedded.Server(tmp_path_factory.mktemp("machine"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "_programs", lambda: programs)
        patch.setenv("LOCPATH", str(locales))
        embedded.start(server, databases=("client", "closed"))
        try:
            administer(
                server,
                *("create role asked login password 'secret'", "create role full login connection limit 0"),
                *("revoke connect on database closed from public", "create role outside login"),
            )
            hba = server.data / "pg_hba.conf"
            hba.write_text(f"local all asked scram-sha-256\n{hba.read_text()}")
            yield server
        finally:
            embedded.stop(server)


@pytest.fixture(scope="module", params=sorted(LANGUAGES))
def server(request, machine):
    """The server, in one of the languages."""
    administer(machine, f"alter system set lc_messages = '{request.param}.UTF-8'", "select pg_reload_conf()")
    while administer(machine, "show lc_messages") != (f"{request.param}.UTF-8",):
        pass
    with pytest.raises(psycopg2.OperationalError, match=LANGUAGES[request.param]):
        psycopg2.connect(session.dsn(machine.address("client", "nowhere"), "tests"))
    return machine


def address(server, login, database="client", password=None):
    folder = str(server.socket_folder)
    return from_parts("client", host=folder, port=None, database=database, login=login, password=password, extra={})


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"login": "asked", "password": "wrong"}, "28P01"),
        ({"login": "asked"}, "28P01"),
        ({"login": "nobody"}, "28000"),
        ({"login": "outside", "database": "nowhere"}, "3D000"),
        ({"login": "outside", "database": "closed"}, "42501"),
    ],
)
def test_a_refused_login_is_permanent_and_has_its_cure(server, given, code):
    with pytest.raises(PlantaoError, match=rf"\({code}\)") as refused, session.session(address(server, **given), "x"):
        pass
    assert refused.value.permanent
    assert "server's message above" not in refused.value.next_step
    assert "FATAL" not in refused.value.what
    assert "FALHA" not in refused.value.what


def test_a_server_without_a_free_connection_is_tried_again(server):
    with pytest.raises(DatabaseUnavailable, match="53300"), session.session(address(server, "full"), "x"):
        pass


def read(there, statement):
    with driver_errors.explained("extract", SourceRefused, "reading"), whole_snapshot(there) as snapshot:
        snapshot.value("select set_config('statement_timeout', '300ms', true)")
        list(snapshot.batches(statement))


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("select 1 / (40000 - g) from generate_series(1, 50000) g", (SourceRefused, "22012")),
        ("select pg_sleep(case when g = 40000 then 9 else 0 end) from generate_series(1, 50000) g",
         (DatabaseUnavailable, "57014")),
        ("select pg_terminate_backend(pg_backend_pid()) from generate_series(1, 2)", (DatabaseUnavailable, "57P01")),
    ],
)  # fmt: skip
def test_an_error_in_the_middle_of_a_read_has_its_class(server, statement, expected):
    kind, code = expected
    with pytest.raises(kind, match=code) as caught:
        read(address(server, "outside"), statement)
    assert "\n" not in caught.value.what
