"""Takes predictions and rejects, makes them visible together with the ledger row."""
