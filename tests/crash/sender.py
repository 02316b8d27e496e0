"""Senders of alerts that can be killed: for each line it reads, this forks one that delivers, and prints its pid."""

from __future__ import annotations

import os
import signal
import sys
import time

import slack_sdk.web.client
import slack_sdk.webhook

from plantao import runtime
from plantao.alert.send import deliver_everywhere
from plantao.alert.slack import messenger

# Imported here, so that a sender begins in milliseconds.
PRELOADED = (slack_sdk.web.client, slack_sdk.webhook)


def send() -> None:
    here, to, until = runtime.from_environment(), messenger(), time.monotonic() + 60
    while time.monotonic() < until:
        deliver_everywhere(here, to, patience=0)
        time.sleep(0.002)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            send()
            os._exit(0)
        print(child, flush=True)


if __name__ == "__main__":
    main()
