"""The CronJob controller: a Job for each time of a schedule."""

from __future__ import annotations

import datetime

from msgspec.structs import replace

from podrt.controllers import cronjob_rules as rules
from podrt.controllers.base import Controller
from podrt.controllers.index import controller_of
from podrt.controllers.pods import owner_reference
from podrt.errors import AlreadyExistsError, PodrtError
from podrt.model.base import format_time
from podrt.model.batch import SCHEDULED_AT, CronJob, Job
from podrt.model.meta import ObjectMeta
from podrt.model.schedule import Schedule, ScheduleError
from podrt.store.events import reference


class CronJobs(Controller[CronJob]):
    kind = CronJob
    component = "cronjob-controller"
    owns = (Job,)

    def sync(self, obj: CronJob) -> float | None:
        jobs = self.index.controlled(Job, obj)
        obj = self._note(obj, jobs)
        for job in rules.surplus(obj, jobs):
            self.delete(job)
            self.recorder.record(obj, "Normal", "SuccessfulDelete", f"Deleted job {job.metadata.name}")
        if obj.metadata.deletion_timestamp is not None or obj.spec.suspend:
            return None
        try:
            due = rules.due(obj, self.parts.clock())
        except ScheduleError as error:
            text = f"unparseable schedule: {obj.spec.schedule} : {error}"
            self.recorder.record(obj, "Warning", "UnparseableSchedule", text)
            return None
        if due.too_many:
            text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
            self.recorder.record(obj, "Warning", "TooManyMissedTimes", text)
        if due.run is None:
            return due.again
        if due.late:
            text = f"Missed scheduled time to start a job: {format_time(due.run)}"
            self.recorder.record(obj, "Warning", "MissSchedule", text)
            return due.again
        if self._held(obj, jobs):
            return due.again
        self._run(obj, due.run)
        return due.again

    def _held(self, obj: CronJob, jobs: list[Job]) -> bool:
        """What concurrencyPolicy does about Jobs that still run."""
        active = [job for job in jobs if not rules.is_finished(job)]
        if obj.spec.concurrency_policy == "Forbid" and active:
            text = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self.recorder.record(obj, "Normal", "JobAlreadyActive", text)
            return True
        if obj.spec.concurrency_policy == "Replace":
            for job in active:
                self.delete(job)
                self.recorder.record(obj, "Normal", "SuccessfulDelete", f"Deleted job {job.metadata.name}")
        return False

    def _run(self, obj: CronJob, run: float) -> None:
        job = self._job(obj, run)
        try:
            created = self.registry.create(job)
            self.recorder.record(obj, "Normal", "SuccessfulCreate", f"Created job {created.metadata.name}")
        except AlreadyExistsError:
            old = self.store.get(Job, job.metadata.namespace, job.metadata.name)
            owner = controller_of(old.metadata)
            if owner is None or owner.uid != obj.metadata.uid:
                text = f"Job {job.metadata.name} exists and is not this CronJob's"
                self.recorder.record(obj, "Warning", "FailedCreate", text)
                raise
            # Made before a restart, which came before the run was noted.
        except PodrtError as error:
            self.recorder.record(obj, "Warning", "FailedCreate", f"Error creating job: {error}")
            raise
        stored = self.store.get(CronJob, obj.metadata.namespace, obj.metadata.name)
        stored = self.set_status(stored, replace(stored.status, last_schedule_time=format_time(run)))
        self._note(stored, self.index.controlled(Job, stored))

    def _job(self, obj: CronJob, run: float) -> Job:
        template = obj.spec.job_template
        zone = Schedule(obj.spec.schedule, obj.spec.time_zone).zone
        when = datetime.datetime.fromtimestamp(run, zone).isoformat().replace("+00:00", "Z")
        return Job(
            metadata=ObjectMeta(
                name=rules.job_name(obj, run),
                namespace=obj.metadata.namespace,
                labels=template.metadata.labels,
                annotations={**template.metadata.annotations, SCHEDULED_AT: when},
                owner_references=(owner_reference(obj),),
            ),
            spec=template.spec,
        )

    def _note(self, obj: CronJob, jobs: list[Job]) -> CronJob:
        """Which Jobs are active, and when the last one succeeded."""
        active = [job for job in jobs if not rules.is_finished(job)]
        known = {entry.uid for entry in obj.status.active}
        for job in jobs:
            if job.metadata.uid in known and rules.is_finished(job):
                kind = "Complete" if job.status.completion_time else "Failed"
                text = f"Saw completed job: {job.metadata.name}, condition: {kind}"
                self.recorder.record(obj, "Normal", "SawCompletedJob", text)
        ended = [job.status.completion_time for job in jobs if job.status.completion_time]
        last = max(
            [*ended, *([obj.status.last_successful_time] if obj.status.last_successful_time else [])], default=None
        )
        references = {entry.uid: entry for entry in obj.status.active}
        status = replace(
            obj.status,
            active=tuple(references.get(job.metadata.uid) or reference(job) for job in active),
            last_successful_time=last,
        )
        return self.set_status(obj, status)
