"""Joins what really happened to the predictions, however late it comes, and keeps the sums."""
