"""Model versions: manifest, contract, store, cache and registry."""
