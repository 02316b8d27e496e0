"""Senders of alerts are killed between fact and acknowledgement: each fact arrives, and what may come twice says so."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import slack_stand_in as faults
from slack_stand_in import SlackStandIn
from world import JOB

FACTS = 50
SENDER = Path(__file__).with_name("sender.py")


class Nursery:
    """Where senders come from."""

    def __init__(self, environment) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SENDER)], env={**os.environ, **environment}, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def sender(self):
        self.process.stdin.write("one more\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def raise_fact(world, number):
    world.sql(
        "insert into plantao.alerts (job, kind, fingerprint, message, next_step) values ('bad_reading',"
        " 'source_changed', %s, %s, 'look')", (f"source_changed bad_reading {number}", f"fact {number} happened"),
    )  # fmt: skip


def all_told(world):
    return world.sql("select count(*) from plantao.alerts where page_id is null or sent_at is null") == [(0,)]


def wait_for(happened, seconds=60):
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.001)


def undisturbed(world, nursery):
    """Return how long it takes from a fact to its acknowledgement when nobody kills anybody."""
    sender = nursery.sender()
    began = time.monotonic()
    raise_fact(world, 0)
    wait_for(lambda: all_told(world))
    os.kill(sender, signal.SIGKILL)
    return time.monotonic() - began


def test_fifty_kills_between_fact_and_acknowledgement_lose_nothing_and_repeats_say_so(world):
    chance = random.Random(20131101)
    world.sql("create table public.readings (id bigint primary key, at timestamptz not null)")
    world.job(JOB + '\n[alert]\nchannel = "#ops"\n')
    with SlackStandIn() as there:
        environment = {
            **world.environment, "AIRFLOW_CONN_SLACK": there.connection(),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }  # fmt: skip
        there.fault = faults.Fault("slow", 0.02)  # so that kills also hit the wait for the answer
        nursery = Nursery(environment)
        usual = undisturbed(world, nursery)
        for number in range(1, FACTS + 1):
            asked = len(there.asked)
            sender = nursery.sender()
            raise_fact(world, number)
            if number % 2:  # somewhere between the fact and the acknowledgement
                time.sleep(chance.uniform(0, usual))
            else:  # around the moment at which Slack has it
                wait_for(lambda asked=asked: len(there.asked) > asked)
                time.sleep(chance.uniform(0, 0.04))
            os.kill(sender, signal.SIGKILL)
        last = nursery.sender()
        wait_for(lambda: all_told(world))
        os.kill(last, signal.SIGKILL)
        nursery.close()
        pages = [one.words for one in there.messages if "has something to tell" in one.words]
        by_message = Counter(re.search(r"message (\d+) ·", words)[1] for words in pages)
        repeats = [words for words in pages if "may repeat message" in words]
        told = world.sql("select page_id, count(*), bool_and(sent_at is not null) from plantao.alerts group by 1")
        # Every fact is in a message that arrived; a message counts its facts, though it lists only three.
        assert sum(count for _, count, _ in told) == FACTS + 1
        assert all(sent for _, _, sent in told)
        assert {str(page) for page, _, _ in told} == set(by_message)
        for page, count, _ in told:
            words = next(words for words in pages if f"message {page} ·" in words)
            assert f"{count} notification" in words
        again = sum(count - 1 for count in by_message.values())
        assert again <= FACTS
        assert len(repeats) > 3  # else the kills hit nothing
        assert again <= len(repeats) <= FACTS
        for number, count in by_message.items():
            marked = [words for words in pages if f"may repeat message {number}," in words]
            assert len(marked) >= count - 1
