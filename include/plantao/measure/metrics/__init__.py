"""Turns sums into figures: a value with its rows, its interval and its status."""
