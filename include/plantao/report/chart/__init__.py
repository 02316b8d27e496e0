"""Takes rows of figures, gives one specification of a picture each: for a page, for Slack and for the docs."""
