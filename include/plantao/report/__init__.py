"""The report of a job: its data, its page, its charts."""
