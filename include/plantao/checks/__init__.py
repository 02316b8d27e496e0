"""Will it work here? Every precondition of a run, asked one by one; nothing is written."""
