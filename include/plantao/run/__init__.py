"""One run from the first row to the commit: whole, in parts, beside a challenger, and reconciled."""
