"""A bar of finished jobs below what is printed on a terminal, with an estimate of the time left."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from statistics import fmean
from typing import TextIO

from tqdm import tqdm


class JobBar:
    """A bar of jobs, drawn anew every second.

    A job to come is expected to take the mean time of its rule's finished jobs, or of all finished
    jobs if none is of its rule; a running one, what is left of that.  The time left is the sum of
    these over the number of jobs that ran at once so far, on average.

    Args:
        jobs: the rule of every job to run, by the job's number.
        file: the terminal.
        clock: returns seconds.
    """

    def __init__(
        self,
        jobs: Mapping[int, str],
        file: TextIO,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.clock, self.file, self.began = clock, file, clock()
        self.waiting = dict(jobs)
        self.running: dict[int, tuple[str, float]] = {}
        self.took: dict[str, list[float]] = defaultdict(list)
        self.failed: set[int] = set()
        self.bar = tqdm(
            total=len(jobs),
            file=file,
            bar_format="{n_fmt} of {total_fmt} jobs |{bar}| {elapsed}{desc}",
            dynamic_ncols=True,
            leave=False,
        )
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.ticking = threading.Thread(target=self._tick, daemon=True)
        self.ticking.start()

    def start(self, job: int, rule: str) -> None:
        """Count a job as running; one that failed may be tried again."""
        with self.lock:
            self.waiting.pop(job, None)
            self.failed.discard(job)
            self.running[job] = (rule, self.clock())

    def finish(self, job: int) -> None:
        """Count a job as finished."""
        with self.lock:
            if job in self.running:
                rule, began = self.running.pop(job)
                self.took[rule].append(self.clock() - began)
        self.bar.update()

    def fail(self, job: int) -> None:
        """Count a job as failed."""
        with self.lock:
            self.running.pop(job, None)
            self.failed.add(job)

    def seconds_left(self) -> float | None:
        """Return the estimate, or None before any job has finished."""
        with self.lock:
            now = self.clock()
            finished = [seconds for times in self.took.values() for seconds in times]
            if not finished:
                return None
            mean = {rule: fmean(times) for rule, times in self.took.items()}
            usual = fmean(finished)
            spent = [(rule, now - began) for rule, began in self.running.values()]
            to_come = sum(mean.get(rule, usual) for rule in self.waiting.values())
            to_come += sum(max(mean.get(rule, usual) - seconds, 0) for rule, seconds in spent)
            work = sum(finished) + sum(seconds for _, seconds in spent)
            return to_come * (now - self.began) / work

    def aside(self) -> AbstractContextManager:
        """Return a context without the bar, to print in."""
        return tqdm.external_write_mode(self.file)

    def close(self) -> None:
        """Remove the bar."""
        self.closing.set()
        self.ticking.join()
        self.bar.close()

    def _tick(self) -> None:
        while not self.closing.wait(1):
            left = self.seconds_left()
            text = "" if left is None else f", about {tqdm.format_interval(left)} left"
            self.bar.set_description_str(
                text + (f", {len(self.failed)} failed" if self.failed else "")
            )
