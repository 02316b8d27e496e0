"""Questions to the catalogue of a source's database. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg2.sql import SQL, Composed
from psycopg2.sql import Literal as Value

if TYPE_CHECKING:
    from plantao.extract.source import Source


def is_unique(source: Source) -> Composed:
    """Return the SELECT that tells whether the source itself guarantees that a key identifies one row."""
    if source.job.query is not None:
        return Composed([SQL("select false")])
    assert source.job.extract.table is not None
    schema, table = source.job.extract.table
    return SQL(
        "select exists (select from pg_catalog.pg_index i"
        " where i.indrelid = pg_catalog.format('%I.%I', {schema}::text, {table}::text)::regclass"
        " and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null"
        # The index of a parent does not cover the tables that inherit from it; that of a partitioned table does.
        " and not exists (select from pg_catalog.pg_inherits h join pg_catalog.pg_class c on c.oid = h.inhparent"
        " where c.oid = i.indrelid and c.relkind <> 'p')"
        " and (select pg_catalog.array_agg(a.attname::text) from pg_catalog.pg_attribute a"
        " where a.attrelid = i.indrelid and a.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1])) <@ {key}::text[])"
    ).format(schema=Value(schema), table=Value(table), key=Value(list(source.job.extract.key)))


def has_every_time(source: Source) -> Composed:
    """Return the SELECT that tells whether the source itself demands a timestamp of each row."""
    if source.job.query is not None:
        return Composed([SQL("select false")])
    assert source.job.extract.table is not None
    schema, table = source.job.extract.table
    return SQL(
        "select exists (select from pg_catalog.pg_attribute a"
        " where a.attrelid = pg_catalog.format('%I.%I', {schema}::text, {table}::text)::regclass"
        " and a.attname = {column} and a.attnotnull)"
    ).format(schema=Value(schema), table=Value(table), column=Value(source.job.extract.timestamp))


def is_indexed(source: Source) -> Composed:
    """Return the SELECT that tells whether rows without a timestamp are found without reading all others."""
    if source.job.query is not None:
        return Composed([SQL("select false")])
    assert source.job.extract.table is not None
    schema, table = source.job.extract.table
    return SQL(
        "select exists (select from pg_catalog.pg_index i"
        " join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]"
        " where i.indrelid = pg_catalog.format('%I.%I', {schema}::text, {table}::text)::regclass"
        " and a.attname = {column} and not a.attnotnull and i.indisvalid and i.indpred is null)"
    ).format(schema=Value(schema), table=Value(table), column=Value(source.job.extract.timestamp))


def can_read_predictions(source: Source) -> Composed:
    """Return the SELECT that tells whether this session may read the prediction table."""
    schema, table = source.job.load.table
    return SQL(
        "select exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname = {} and c.relname = {} and pg_catalog.has_schema_privilege(n.oid, 'usage')"
        " and pg_catalog.has_table_privilege(c.oid, 'select'))"
    ).format(Value(schema), Value(table))
