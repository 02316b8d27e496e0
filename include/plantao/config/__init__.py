"""Everything a user declares: job files, settings, addresses of connections."""
