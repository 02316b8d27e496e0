"""Takes accepted rows and a verified model version, gives predictions."""
