"""The crash test: kill workers at every instant, and compare what is left with an undisturbed run.

    make crash-test CRASH="--kills 1000 --seed 7"

Each trial disturbs one attempt to score one window of an hour, looks whether anything half-done can be seen, lets one
clean retry run, and looks again. In some trials a client changes its table meanwhile: see `client.py`. In the end every
prediction is compared with those of a run that nobody disturbed. The same comparison is then applied to two naive
writers, which it must convict.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import psycopg2

import warm
from crash import client, victim
from crash.victim import FINE, TRANSIENT, UNEXPECTED, Orders
from plantao.window import Window
from world import APRIL, JOB, TABLE, WORKER, World, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from plantao.postgres import embedded

ROWS_PER_WINDOW = 600
PATIENCE = 60.0
HOURLY = JOB.replace('schedule = "daily"', 'schedule = "0 * * * *"').replace('"3 days"', '"2 hours"')
UNDISTURBED = HOURLY.replace("predictions.bad_reading", "predictions.undisturbed")
# What the rows of the restless client look like: as they are at first and in the end, and as some are meanwhile.
STATES = {"as_it_was": "x", "as_edited": "sin(id) + 0.25"}


@dataclass(frozen=True)
class Verdict:
    """What a table holds beside what it should hold."""

    lost: int
    doubled: int
    wrong: int


def judge(expected: Mapping[int, Collection[tuple[Any, ...]]], found: list[tuple[Any, ...]]) -> Verdict:
    """Compare rows of (key, prediction, score) with what each key may have."""
    seen = Counter(row[0] for row in found)
    return Verdict(
        lost=len(expected.keys() - seen.keys()),
        doubled=sum(count - 1 for count in seen.values()),
        wrong=sum(row[1:] not in expected.get(row[0], ()) for row in found),
    )


@dataclass
class Tally:
    """What was done to the workers, and what was found wrong."""

    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Arena:
    """A client with many windows, and everything that can happen to who scores them."""

    def __init__(self, world: World, server: embedded.Server, windows: int, restless: int, seed: int) -> None:
        self.world, self.server, self.random = world, server, random.Random(seed)
        self.tally = Tally()
        self.fresh = (Window(APRIL + timedelta(hours=n), APRIL + timedelta(hours=n + 1)) for n in range(windows))
        self.scored: list[Window] = []
        self.restless: list[Window] = []
        self.usual_seconds = PATIENCE
        self.points: dict[bool, int] = {}
        self._processes = warm.processes()
        world.sql(TABLE)
        world.sql(
            "insert into readings (id, at, x, y, city)"
            " select i, %s + i / %s * interval '1 hour' + i::bigint * 7919 %% 3600 * interval '1 s', sin(i),"
            " case when i %% 17 > 0 then cos(i * 7) end, (array['Porto', 'Recife', 'São Paulo'])[1 + i %% 3]"
            " from generate_series(0, %s) as i",
            (APRIL, ROWS_PER_WINDOW, windows * ROWS_PER_WINDOW - 1),
        )
        last = APRIL + timedelta(hours=restless)
        for table, x in ((client.TABLE, "x"), *STATES.items()):
            world.sql(
                f"create table {table} (like readings including all); insert into {table}"
                f" select id, at, {x}, y, city, edited_at from readings where at < %s",
                (last,),
            )
        world.register()
        world.job(HOURLY)
        world.job(UNDISTURBED, "undisturbed")
        for table in (client.TABLE, *STATES):
            text = HOURLY.replace("public.readings", f"public.{table}")
            world.job(text.replace("predictions.bad_reading", f"predictions.{table}"), table)
        self._learn_the_points()

    # --- what is done to a worker -------------------------------------------------------------------------------------

    def start(self, window: Window, **orders: Any) -> Any:
        """Start a worker process."""
        given = {"job": "bad_reading", "environment": self.world.environment, "window": window, **orders}
        process = self._processes.Process(target=victim.work, args=(Orders(**given),), daemon=True)
        process.start()
        return process

    def finish(self, process: Any) -> int:
        """Wait for a worker, and return its exit status; negative when a signal has ended it."""
        process.join(PATIENCE)
        if process.is_alive():
            self.tally.wrong.append("a worker hangs")
            process.kill()
            process.join()
        if process.exitcode == UNEXPECTED:
            self.tally.wrong.append((self.world.folder / "unexpected").read_text().splitlines()[-1])
        return int(process.exitcode)

    def retry(self, window: Window, **orders: Any) -> None:
        """Score the window as Airflow's retries would, until one succeeds."""
        for _ in range(4):
            status = self.finish(self.start(window, **orders))
            if status == FINE:
                return
            self.tally.done[f"retries that ended with status {status}"] += 1
            time.sleep(0.2)
        failed = self.world.folder / "failed"
        why = failed.read_text(encoding="utf-8") if failed.exists() else "it did not say why"
        self.tally.wrong.append(f"no retry has scored {window.shown()}: {why}")

    def kill_at_random(self, window: Window, rescore: bool) -> None:
        """SIGKILL at a random instant."""
        process = self.start(window, rescore=rescore)
        time.sleep(self.random.uniform(0, self.usual_seconds))
        _signal(process, signal.SIGKILL)
        self.tally.done["killed at random" if self.finish(process) < 0 else "finished before the kill"] += 1

    def kill_at_point(self, window: Window, rescore: bool, point: int) -> None:
        """SIGKILL before or after a certain statement."""
        status = self.finish(self.start(window, rescore=rescore, point=point))
        self.tally.done["killed at a statement" if status < 0 else "aimed, but finished"] += 1

    def freeze_and_revive(self, window: Window, rescore: bool) -> None:
        """SIGSTOP at a random instant; go on only after the replacement has finished."""
        process = self.start(window, rescore=rescore)
        time.sleep(self.random.uniform(0, self.usual_seconds))
        stopped = _signal(process, signal.SIGSTOP)
        self.retry(window, rescore=rescore)
        _signal(process, signal.SIGCONT)
        self.finish(process)
        self.tally.done["frozen, revived after the replacement" if stopped else "finished before the freeze"] += 1

    def crash_server(self, window: Window, rescore: bool) -> None:
        """Kill a process of the server's, so that all of them end, and it recovers."""
        process = self.start(window, rescore=rescore)
        time.sleep(self.random.uniform(0, self.usual_seconds))
        children = psutil.Process(self.server_pid).children()
        with contextlib.suppress(psutil.NoSuchProcess):
            self.random.choice(children).kill()
        psutil.wait_procs(children, timeout=PATIENCE)  # it ends all of them before it recovers
        status = self.finish(process)
        if status not in {FINE, TRANSIENT}:
            self.tally.wrong.append(f"a crash of the server ended a worker with status {status}")
        self.await_server()
        self.tally.done["server crashes"] += 1

    def lose_commit(self, window: Window, rescore: bool) -> None:
        """Commit, and let the answer never arrive."""
        status = self.finish(self.start(window, rescore=rescore, lose_commit=True))
        self.tally.done["commits whose answer was lost"] += status == TRANSIENT
        if status != TRANSIENT:
            self.tally.wrong.append(f"a lost answer to a commit ended a worker with status {status}")

    # --- what is looked at --------------------------------------------------------------------------------------------

    def trial(self, disturb: Callable[..., None], *details: Any, rescore: bool = False) -> None:
        """Disturb the scoring of a window, look, let a clean retry run, look again."""
        window = self.random.choice(self.scored) if rescore and self.scored else next(self.fresh)
        if window not in self.scored:
            self.scored.append(window)
        disturb(window, rescore, *details)
        self._look(window, "after the disturbance")
        self.retry(window, rescore=rescore)
        self._look(window, "after the retry", complete=True)

    def trial_beside(self, act: str, *, kill: bool) -> None:
        """Let a client act while a worker scores a window, and is killed; let a clean retry run; look."""
        start = APRIL + timedelta(hours=len(self.restless))
        window = Window(start, start + timedelta(hours=1))
        self.restless.append(window)
        chance = random.Random(self.random.random())  # of its own, since it acts in a thread of its own
        with client.at_work(self.world, act, window, chance, self.usual_seconds) as acts:
            process = self.start(window, job=client.TABLE)
            if kill:
                time.sleep(self.random.uniform(0, self.usual_seconds))
                _signal(process, signal.SIGKILL)
            status = self.finish(process)
        self.tally.done["killed beside a client" if status < 0 else f"beside a client, ended with status {status}"] += 1
        self.tally.done[f"times a client {act}"] += len(acts)
        self.retry(window, job=client.TABLE)
        untrue = self.untrue_successes(window, hides=client.ACTS[act].hides)
        self.tally.wrong += [f"{window.shown()}: {one}, beside a client that {act}" for one in untrue]

    def untrue_successes(self, window: Window, *, hides: bool) -> list[str]:
        """Return what is untrue of the successes of a window: no rows, or fewer than there were."""
        rows = self.world.sql(
            "select status, rows_read, rows_scored,"
            " (select count(*) from predictions.restless p where p.run_id = r.run_id) from plantao.runs r"
            " where job = 'restless' and window_start = %s and window_end = %s and status in ('succeeded', 'empty')",
            (window.start, window.end),
        )
        fewest = ROWS_PER_WINDOW // 4 if hides else ROWS_PER_WINDOW
        found = [f"an {status} run" for status, *_ in rows if status == "empty"]
        found += [f"a success that read {read} rows" for status, read, *_ in rows if 0 < read < fewest]
        return found + [
            f"a success of {scored} rows that wrote {wrote}" for *_, scored, wrote in rows if wrote != scored
        ]

    def verdict_of_restless(self) -> Verdict:
        """Compare every prediction of the restless client's rows with those of each state that its row had."""
        whole = Window(self.restless[0].start, self.restless[-1].end)
        expected: dict[int, set[tuple[Any, ...]]] = {}
        for state in STATES:
            self.retry(whole, job=state)
            for key, *rest in self.world.sql(f"select id, prediction, score from predictions.{state}"):
                if state == "as_it_was" or key % 3 == 0:
                    expected.setdefault(key, set()).add(tuple(rest))
        return judge(expected, self.world.sql("select id, prediction, score from predictions.restless"))

    def _look(self, window: Window, when: str, *, complete: bool = False) -> None:
        """Find what must never be seen: predictions without a success, a success without its predictions."""
        bounds = {"s": window.start, "e": window.end}
        half, current, history, promised, rescored, running = self.world.sql(
            "with p as (select * from predictions.bad_reading"
            "  where source_timestamp >= %(s)s and source_timestamp < %(e)s),"
            " h as (select * from predictions.bad_reading_history"
            "  where source_timestamp >= %(s)s and source_timestamp < %(e)s),"
            " r as (select * from plantao.runs where job = 'bad_reading'"
            "  and window_start = %(s)s and window_end = %(e)s)"
            " select (select count(*) from p where not exists (select from plantao.runs as r where r.run_id = p.run_id"
            "  and r.status = 'succeeded')),"
            " (select count(*) from p), (select count(*) from h),"
            " (select coalesce(sum(rows_scored), 0) from r where status in ('succeeded', 'empty')),"
            " (select coalesce(sum(rows_rescored), 0) from r where status in ('succeeded', 'empty')),"
            " (select count(*) from r where status = 'running')",
            bounds,
        )[0]  # fmt: skip
        shown = f"{window.shown()} {when}"
        if half:
            self.tally.wrong.append(f"{shown}: {half} predictions of runs that did not succeed")
        if current + history != promised or history != rescored:
            self.tally.wrong.append(f"{shown}: {current} + {history} rows, but the ledger has {promised}, {rescored}")
        if current not in ({ROWS_PER_WINDOW} if complete else {0, ROWS_PER_WINDOW}):
            self.tally.wrong.append(f"{shown}: {current} of {ROWS_PER_WINDOW} rows")
        if complete and running:
            self.tally.wrong.append(f"{shown}: {running} attempts are left running")

    def final_verdict(self) -> Verdict:
        """Compare every prediction with those of a run that nobody disturbed."""
        return judge(self._expected(), self.world.sql("select id, prediction, score from predictions.bad_reading"))

    def naive_verdict(self, how: str, kills: int) -> Verdict:
        """Kill a naive writer and let it retry, as often as given, and compare in the same way."""
        table = f"naive_{how}"
        self.world.sql(f"create table {table} (id bigint, at timestamptz, prediction boolean, score float8);"
                       f" grant select, insert on {table} to {WORKER}")  # fmt: skip
        chosen = sorted(self.scored)[:kills]
        for window in chosen:
            self.finish(self.start(window, naive=how, point=self.random.randrange(20, 60)))
            self.retry(window, naive=how)
        expected = self._expected()
        within = "select id from readings where at >= %s and at < %s"
        keys = {row[0] for window in chosen for row in self.world.sql(within, (window.start, window.end))}
        rows = self.world.sql(f"select id, prediction, score from {table}")
        return judge({key: expected[key] for key in keys}, rows)

    def naive_verdict_beside(self, act: str, windows: int) -> Verdict:
        """Let a naive writer read while a client's rows are away, and compare with all that there are in the end."""
        self.world.sql("create table naive_append_once (id bigint, at timestamptz, prediction boolean, score float8);"
                       f" grant select, insert on naive_append_once to {WORKER}")  # fmt: skip
        for window in self.restless[:windows]:
            values = {"start": window.start, "end": window.end}
            self.world.sql(client.ACTS[act].does, values)
            self.finish(self.start(window, naive="append_once", table=client.TABLE))
            self.world.sql(client.ACTS[act].undoes, values)
        expected = {key: {tuple(rest)} for key, *rest in self.world.sql(
            "select id, prediction, score from predictions.as_it_was where source_timestamp < %s",
            (self.restless[windows - 1].end,),
        )}  # fmt: skip
        return judge(expected, self.world.sql("select id, prediction, score from naive_append_once"))

    def _expected(self) -> dict[int, set[tuple[Any, ...]]]:
        """Return what a run that nobody disturbed has written for the same windows."""
        whole = Window(self.scored[0].start, max(window.end for window in self.scored))
        self.retry(whole, job="undisturbed")
        return {
            row[0]: {row[1:]} for row in self.world.sql("select id, prediction, score from predictions.undisturbed")
        }

    # --- set-up ---------------------------------------------------------------------------------------------------

    def _learn_the_points(self) -> None:
        """Score two windows undisturbed: how long it takes, and how many points there are."""
        counted = self.world.folder / "points"
        for rescore in (False, False, True, True):
            window = next(self.fresh) if not rescore else self.scored[0]
            self.scored += [] if rescore else [window]
            began = time.perf_counter()
            status = self.finish(self.start(window, rescore=rescore, count_into=str(counted)))
            if status != FINE:
                message = f"an undisturbed run ended with status {status}"
                raise RuntimeError(message)
            self.usual_seconds = min(self.usual_seconds, time.perf_counter() - began)
            self.points[rescore] = int(counted.read_text())

    @property
    def server_pid(self) -> int:
        """The server's first process."""
        return int((self.server.data / "postmaster.pid").read_text().split()[0])

    def await_server(self) -> None:
        """Return when the server has recovered."""
        for _ in range(200):
            with contextlib.suppress(psycopg2.OperationalError):
                self.world.sql("select 1")
                return
            time.sleep(0.05)
        message = "the server did not recover"
        raise RuntimeError(message)


def _signal(process: Any, number: int) -> bool:
    """Send a signal; False when the process has ended."""
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def rehearse(
    arena: Arena, *, random_kills: int, aimed: int, frozen: int, crashes: int, commits: int, beside: int,
    say: Callable[[str], None] = lambda _: None,
) -> None:  # fmt: skip
    """Run the trials in a random order; aimed kills are spread evenly over all statements, of both kinds of run.

    Of the workers beside a client three in four are killed.
    """
    places = [(rescore, point) for rescore, count in sorted(arena.points.items()) for point in range(count)]
    chosen = [places[i * len(places) // aimed] for i in range(aimed)] if aimed < len(places) else (
        places * (aimed // len(places)) + arena.random.sample(places, aimed % len(places)))  # fmt: skip
    trials: list[tuple[Any, ...]] = [(arena.kill_at_point, rescore, point) for rescore, point in chosen]
    for disturb, count in (
        (arena.kill_at_random, random_kills),
        (arena.freeze_and_revive, frozen),
        (arena.crash_server, crashes),
        (arena.lose_commit, commits),
    ):
        trials += [(disturb, arena.random.random() < 0.25) for _ in range(count)]
    acts = list(client.ACTS)
    trials += [(None, acts[n % len(acts)], (n + n // len(acts)) % 4 != 3) for n in range(beside)]
    arena.random.shuffle(trials)
    for number, (disturb, first, *details) in enumerate(trials, 1):
        if disturb is None:
            arena.trial_beside(first, kill=details[0])
        else:
            arena.trial(disturb, *details, rescore=first)
        if number % 100 == 0:
            say(f"{number} of {len(trials)} trials, {len(arena.tally.wrong)} findings")


@contextlib.contextmanager
def stage(folder: Path, windows: int, restless: int, seed: int) -> Iterator[Arena]:
    """Set up a server of its own, which may crash, with a client, a restless one and an arena on it."""
    (folder / "world").mkdir()
    with serving(folder / "state") as server, World.create(server, folder / "world") as world:
        yield Arena(world, server, windows, restless, seed)


def main() -> int:
    """Run the release check and print what was done and found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="SIGKILLs in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="to repeat an earlier check")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1_000_000)
    frozen, crashes, commits = given.kills // 15, given.kills // 40, given.kills // 40
    beside = max(given.kills // 5, len(client.ACTS))
    print(f"seed {seed}", flush=True)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="plantao-crash-", ignore_cleanup_errors=True) as folder:
        with stage(Path(folder), 2 * given.kills + frozen + crashes + commits, beside, seed) as arena:
            aimed = given.kills * 2 // 5
            rehearse(arena, random_kills=given.kills - aimed, aimed=aimed, frozen=frozen, crashes=crashes,
                     commits=commits, beside=beside, say=lambda text: print(text, flush=True))  # fmt: skip
            while arena.tally.done["killed at random"] < given.kills - aimed:  # some have come after the end
                arena.trial(arena.kill_at_random)
            verdict, of_restless = arena.final_verdict(), arena.verdict_of_restless()
            control = {f"{how}, 20 kills": arena.naive_verdict(how, 20) for how in ("append", "watermark")}
            control["append, beside a client that deletes half"] = arena.naive_verdict_beside("deletes half", 5)
            tally = arena.tally
            print(f"\nstatements, COPYs, commits and batches at which to stop: {arena.points}")
            rows, restless_rows = (len(windows) * ROWS_PER_WINDOW for windows in (arena.scored, arena.restless))
    for what, count in sorted(tally.done.items()):
        print(f"{count:7} {what}")
    killed = sum(tally.done[how] for how in ("killed at random", "killed at a statement", "killed beside a client"))
    print(f"{killed:7} kills in all, {time.perf_counter() - began:.0f} s, seed {seed}\n")
    print(f"{rows:7} rows: {verdict.lost} lost, {verdict.doubled} doubled, {verdict.wrong} wrong; "
          f"{len(tally.wrong)} half or empty successes and other findings")  # fmt: skip
    print(f"{restless_rows:7} rows of a client that changes its table meanwhile: {of_restless.lost} lost,"
          f" {of_restless.doubled} doubled, {of_restless.wrong} wrong")  # fmt: skip
    for line in tally.wrong[:20]:
        print(f"        {line}")
    for how, found in control.items():
        print(f"        the same judge on a naive writer ({how}): {found.lost} lost, {found.doubled} doubled")
    convicted = all(found.lost + found.doubled for found in control.values())
    innocent = verdict == of_restless == Verdict(0, 0, 0) and not tally.wrong
    return 0 if innocent and convicted and killed >= given.kills else 1
