"""Sends what waits in the outbox: at once or in a digest, until Slack has acknowledged it."""
