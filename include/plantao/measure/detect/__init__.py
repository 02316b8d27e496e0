"""Judges figures: BREAK and DEGRADED page, DRIFT is for the digest."""
