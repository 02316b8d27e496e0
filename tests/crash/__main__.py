"""`python -m crash`: the release check."""

import sys

from crash.arena import main

if __name__ == "__main__":
    sys.exit(main())
