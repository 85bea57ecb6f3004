"""Cron schedules in a time zone: five fields, ``@daily`` and the like, ``@every`` a duration.

Fields are croniter's work; here they get a zone. Local times that a clock change skips don't run, those that it repeats
run once, at their first.
"""

from __future__ import annotations

import datetime
import re
import zoneinfo
from typing import Any

MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EVERY = re.compile(r"@every (?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_SEARCH = 480
"""Matches in skipped or repeated hours that are passed over at most, for one answer: all minutes of some hours."""
COUNTED = 100


class ScheduleError(ValueError):
    """The text is no schedule."""


class Schedule:
    """One parsed schedule. Raises ScheduleError; a zone that does not exist is UTC (validation refuses it before)."""

    def __init__(self, text: str, zone: str | None = None) -> None:
        self.text = text
        if zone is None and (match := re.match(r"(?:CRON_)?TZ=(\S+)\s+", text)):
            raise ScheduleError(f"cannot use TZ or CRON_TZ in schedule, use timeZone field instead: {match.group(1)}")
        try:
            self.zone: datetime.tzinfo = zoneinfo.ZoneInfo(zone) if zone else datetime.UTC
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            self.zone = datetime.UTC
        self._period = 0
        if text.startswith("@every "):
            match = _EVERY.fullmatch(text)
            numbers = [int(part or 0) for part in match.groups()] if match else [0, 0, 0]
            self._period = numbers[0] * 3600 + numbers[1] * 60 + numbers[2]
            if self._period <= 0:
                raise ScheduleError("@every needs a duration such as 1h30m")
            return
        self._fields = MACROS.get(text, text)
        if len(self._fields.split()) != 5:
            raise ScheduleError(f"expected exactly 5 fields, found {len(self._fields.split())}: {text}")
        import croniter

        if not croniter.croniter.is_valid(self._fields):
            raise ScheduleError("not a schedule: minute, hour, day of month, month and day of week are expected")

    def after(self, moment: float) -> float:
        """The first time of the schedule after a Unix time. Raises ScheduleError if there never is one."""
        if self._period:
            return moment + self._period
        import croniter

        # croniter counts in local wall time here; the zone is put back to each result.
        local = datetime.datetime.fromtimestamp(moment, self.zone).replace(tzinfo=None)
        walk: Any = croniter.croniter(self._fields, local)
        for _ in range(_SEARCH):
            try:
                wall = walk.get_next(datetime.datetime)
            except croniter.CroniterError as error:
                raise ScheduleError(f"{self.text}: never runs: {error}") from error
            found = wall.replace(tzinfo=self.zone).timestamp()
            back = datetime.datetime.fromtimestamp(found, self.zone).replace(tzinfo=None)
            if found > moment and back == wall:
                return float(found)
        raise ScheduleError(f"{self.text}: no time found")

    def latest(self, since: float, until: float) -> tuple[float | None, int]:
        """The last time in (since, until], and how many there are there (counting stops at 101)."""
        count, moment = 0, since
        try:
            while count <= COUNTED and (moment := self.after(moment)) <= until:
                count += 1
        except ScheduleError:
            pass
        if not count:
            return None, 0
        if self._period:
            return since + (until - since) // self._period * self._period, count
        return self._last(until), count

    def _last(self, until: float) -> float | None:
        import croniter

        local = datetime.datetime.fromtimestamp(until + 1, self.zone).replace(tzinfo=None)
        walk: Any = croniter.croniter(self._fields, local)
        for _ in range(_SEARCH):
            wall = walk.get_prev(datetime.datetime)
            found = wall.replace(tzinfo=self.zone).timestamp()
            if found <= until and datetime.datetime.fromtimestamp(found, self.zone).replace(tzinfo=None) == wall:
                return float(found)
        return None
