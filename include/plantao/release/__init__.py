"""Decides which version of a model scores, and lets others score beside it."""
