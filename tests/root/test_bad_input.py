"""Bad input at a live daemon: each malformed Pod is refused by field name, nothing is left, the daemon goes on."""

from __future__ import annotations

import pytest

from tests.framework.client import ApiError
from tests.framework.daemon import Daemon
from tests.framework.pods import container, pod

malformed = pytest.importorskip("tests.framework.malformed")


def test_every_malformed_pod_is_refused_by_field(shared_daemon: Daemon) -> None:
    assert len(malformed.CASES) >= 100
    wrong = []
    for case in malformed.CASES:
        body = case.body()
        try:
            shared_daemon.api("POST", "/api/v1/namespaces/default/pods?fieldValidation=Strict", body)
        except ApiError as error:
            text = str(error.status)
            if error.code not in (400, 422) or case.field not in text:
                wrong.append(f"{case.name}: {error.code} {text}")
        else:
            wrong.append(f"{case.name}: was accepted")
    assert not wrong, "\n".join(wrong)
    assert shared_daemon.pods() == []
    shared_daemon.apply(pod("sane", container()))
    shared_daemon.wait_for("sane", "Running")
