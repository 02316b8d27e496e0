"""`python -m crash`: the release check."""

import sys
import tempfile
from pathlib import Path

import reaper
from crash.arena import main

if __name__ == "__main__":
    reaper.watch_over(Path(tempfile.mkdtemp(prefix="plantao-crash-check-")))
    sys.exit(main())
