"""Counts scored rows by local day, in cells that the reference has fixed: sums that add up to any week or month."""
