"""Shows how a job is doing: one page that opens anywhere, and its pictures."""
