"""CronJob: which run is due, and which finished Jobs are too many. Pure functions."""

from __future__ import annotations

from typing import NamedTuple

from podrt.controllers.job_rules import finished
from podrt.model.base import parse_time
from podrt.model.batch import CronJob, Job
from podrt.model.schedule import COUNTED, Schedule, ScheduleError

DELTA = 0.1
"""Seconds after the scheduled second, so that a clock that is read early doesn't miss it."""


class Due(NamedTuple):
    """``run``: the Unix time of the run that is to start now, None if none is. ``again``: seconds until the next.

    ``late``: the run is past its deadline and must be skipped. ``missed``: runs that are due, up to COUNTED + 1.
    """

    run: float | None
    again: float | None
    late: bool = False
    missed: int = 0

    @property
    def too_many(self) -> bool:
        return self.missed > COUNTED


def due(value: CronJob, now: float) -> Due:
    """Of several missed runs only the latest. Raises ScheduleError for a schedule that can't be read."""
    schedule = Schedule(value.spec.schedule, value.spec.time_zone)
    since = parse_time(value.metadata.creation_timestamp).timestamp() if value.metadata.creation_timestamp else now
    if value.status.last_schedule_time is not None:
        since = parse_time(value.status.last_schedule_time).timestamp()
    deadline = value.spec.starting_deadline_seconds
    earliest = since if deadline is None else max(since, now - deadline)
    try:
        again: float | None = max(0.0, schedule.after(now) - now) + DELTA
    except ScheduleError:
        again = None
    run, missed = schedule.latest(earliest, now)
    if run is None and deadline is not None and earliest > since:
        skipped, _ = schedule.latest(since, now)
        if skipped is not None:
            return Due(skipped, again, late=True, missed=1)
    return Due(run, again, missed=missed)


def job_name(value: CronJob, run: float) -> str:
    """The name is the lock: one Job for each scheduled minute."""
    return f"{value.metadata.name}-{int(run) // 60}"


def is_finished(job: Job) -> bool:
    return finished(job) is not None


def surplus(value: CronJob, jobs: list[Job]) -> list[Job]:
    """Finished Jobs beyond the history limits, oldest first."""
    done = [(told.type, job) for job in jobs if (told := finished(job)) is not None]
    found: list[Job] = []
    for kind, limit in (
        ("Complete", value.spec.successful_jobs_history_limit),
        ("Failed", value.spec.failed_jobs_history_limit),
    ):
        mine = sorted(
            (job for told, job in done if told == kind and job.metadata.deletion_timestamp is None),
            key=lambda job: (job.status.start_time or job.metadata.creation_timestamp or "", job.metadata.name),
        )
        if limit is not None:
            found += mine[: max(0, len(mine) - limit)]
    return found
