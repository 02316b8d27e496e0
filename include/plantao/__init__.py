"""Plantão scores a client's new rows with a stored model, once each, and says so when it cannot.

The flow of a run, and the folders it passes through, in this order:

    extract -> validate -> score -> load -> measure -> alert
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("plantao")
except PackageNotFoundError:  # imported from a checkout that was never installed
    __version__ = "0.0.0"
