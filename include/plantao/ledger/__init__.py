"""The ledger: runs, parts, jobs, heartbeats, log events, and the schema that holds them."""
