"""Takes a window, gives batches of rows that were not scored yet."""
