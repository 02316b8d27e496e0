"""Sessions on PostgreSQL, locks, snapshots, errors of the drivers, and the embedded server."""
