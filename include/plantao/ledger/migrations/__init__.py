"""The numbered SQL migrations of the ledger, and what applies them."""
