"""Job: what a failed Pod means (podFailurePolicy), when indexes are lost, when success is enough. Pure functions."""

from __future__ import annotations

from typing import NamedTuple

from podrt.model.base import parse_time
from podrt.model.batch import COMPLETION_INDEX, INDEX_FAILURES, Job, PodFailurePolicyRule
from podrt.model.indexes import IndexesError, parse_indexes
from podrt.model.pod import Pod

BACKOFF_FIRST = 10.0
BACKOFF_LAST = 600.0


class Match(NamedTuple):
    """The action of the first rule that fits a failed Pod, and why."""

    action: str
    message: str = ""


COUNT = Match("Count")


def match(job: Job, pod: Pod) -> Match:
    """What a failed Pod does to its Job. Without a policy, or where no rule fits, it counts."""
    policy = job.spec.pod_failure_policy
    if policy is None or pod.status.phase != "Failed":
        return COUNT
    for position, rule in enumerate(policy.rules):
        why = _exit_codes(rule, pod) or _conditions(rule, pod)
        if why:
            return Match(rule.action, f"{why} matching {rule.action} rule at index {position}")
    return COUNT


def _exit_codes(rule: PodFailurePolicyRule, pod: Pod) -> str:
    codes = rule.on_exit_codes
    if codes is None:
        return ""
    for status in (*pod.status.container_statuses, *pod.status.init_container_statuses):
        ended = status.state.terminated
        if ended is None or ended.exit_code == 0 or codes.container_name not in (None, status.name):
            continue
        if (ended.exit_code in codes.values) == (codes.operator == "In"):
            where = f"{pod.metadata.namespace}/{pod.metadata.name}"
            return f"Container {status.name} for pod {where} failed with exit code {ended.exit_code}"
    return ""


def _conditions(rule: PodFailurePolicyRule, pod: Pod) -> str:
    for wanted in rule.on_pod_conditions:
        if any(c.type == wanted.type and c.status == wanted.status for c in pod.status.conditions):
            return f"Pod {pod.metadata.namespace}/{pod.metadata.name} has condition {wanted.type}"
    return ""


def index_of(pod: Pod) -> int:
    """The completion index of a Pod; -1 without one."""
    text = pod.metadata.annotations.get(COMPLETION_INDEX, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1


def index_failures(pod: Pod) -> int:
    """How often its index had failed when a Pod was made."""
    text = pod.metadata.annotations.get(INDEX_FAILURES, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def loses_index(job: Job, pod: Pod) -> bool:
    """Whether a failed Pod is the end of its index."""
    limit = job.spec.backoff_limit_per_index
    if limit is None:
        return False
    action = match(job, pod).action
    return action == "FailIndex" or (action == "Count" and index_failures(pod) >= limit)


def success(job: Job, completed: set[int]) -> str:
    """Why the successPolicy calls a Job done; "" if it doesn't."""
    policy = job.spec.success_policy
    for position, rule in enumerate(policy.rules if policy is not None else ()):
        chosen = completed
        if rule.succeeded_indexes is not None:
            try:
                wanted = parse_indexes(rule.succeeded_indexes)
            except IndexesError:
                continue
            chosen = completed & wanted
            if rule.succeeded_count is None and chosen != wanted:
                continue
        if rule.succeeded_count is None or len(chosen) >= rule.succeeded_count:
            return f"Matched rules at index {position}"
    return ""


def finished_at(pod: Pod) -> float:
    """Unix time of the end of a Pod's last container; of its creation if none says when."""
    ends = [
        parse_time(status.state.terminated.finished_at).timestamp()
        for status in pod.status.container_statuses
        if status.state.terminated is not None and status.state.terminated.finished_at
    ]
    if ends:
        return max(ends)
    return parse_time(pod.metadata.creation_timestamp).timestamp() if pod.metadata.creation_timestamp else 0.0


def backoff(job: Job, pods: list[Pod], now: float) -> float:
    """Seconds to wait before the next Pod: 10 s after the first failure in a row, doubling to 10 minutes.

    Counted from the last failure. Pods that were deleted are no failures of the program and make nobody wait.
    """
    successes = [finished_at(pod) for pod in pods if pod.status.phase == "Succeeded"]
    since = max(successes, default=float("-inf"))
    failures = [
        finished_at(pod)
        for pod in pods
        if pod.status.phase == "Failed"
        and pod.metadata.deletion_timestamp is None
        and finished_at(pod) >= since
        and match(job, pod).action != "Ignore"
    ]
    if not failures:
        return 0.0
    delay = float(min(BACKOFF_FIRST * 2 ** min(len(failures) - 1, 20), BACKOFF_LAST))
    return max(0.0, max(failures) + delay - now)
