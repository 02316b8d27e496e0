"""Alerts and incidents as rows: committed with the fact they report."""
