"""The name of a table: a schema and a name, parsed once and never put together as text. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

LONGEST = 63
"""PostgreSQL cuts longer names without an error."""
QUOTED, BARE = r'"(?:[^"\0]|"")+"', r'[^".\s\0]+'
NEEDS_NO_QUOTES = re.compile(r"[a-z_][a-z0-9_$]*")


class Table(NamedTuple):
    """A table by its two names, so that `Identifier(*table)` quotes it; as text it is what `psql` takes."""

    schema: str
    name: str

    def __str__(self) -> str:
        return ".".join(spelt(part) for part in self)

    @property
    def history(self) -> Table:
        """The table of the predictions that were replaced."""
        return Table(self.schema, f"{self.name}_history")

    @property
    def shadow(self) -> Table:
        """The table of the predictions of challengers."""
        return Table(self.schema, f"{self.name}_shadow")

    @property
    def written(self) -> tuple[Table, Table, Table]:
        """Every table that a job writes whose predictions go to this one."""
        return self, self.history, self.shadow


def spelt(part: str) -> str:
    """Return one name as `psql` takes it."""
    return part if NEEDS_NO_QUOTES.fullmatch(part) else '"' + part.replace('"', '""') + '"'


def parse_table(text: object) -> Table:
    """Read `schema.table`; a part with other characters stands in double quotes.

    A name without a schema belongs to `public`. Raises ValueError for anything that is not one or two names.
    """
    if isinstance(text, Table):
        return text
    if not isinstance(text, str) or not re.fullmatch(rf"(?:{QUOTED}|{BARE})(?:\.(?:{QUOTED}|{BARE}))?", text):
        message = 'a table name such as "public.flights"'
        raise ValueError(message)
    parts = re.findall(r'"((?:[^"\0]|"")+)"|([^".\s\0]+)', text)
    names = [quoted.replace('""', '"') or plain for quoted, plain in parts]
    if any(len(name.encode()) > LONGEST for name in names):
        message = f"names of at most {LONGEST} bytes, PostgreSQL's limit"
        raise ValueError(message)
    return Table("public", names[0]) if len(names) == 1 else Table(names[0], names[1])


def parse_target(text: object) -> Table:
    """Read the name of a table that predictions go to, which leaves room for those that stand beside it."""
    table = parse_table(text)
    if any(len(one.name.encode()) > LONGEST for one in table.written):
        longest = LONGEST - len(table.history.name.encode()) + len(table.name.encode())
        message = f"a table name of at most {longest} bytes, since <table>_history stands beside it"
        raise ValueError(message)
    return table
