"""What the CRI's validation suite taught, and no other test here asks."""

from __future__ import annotations

from pathlib import Path

from tests.framework.cri import CriClient, sandbox


def test_the_log_is_there_when_the_start_has_succeeded(cri: CriClient, tmp_path: Path) -> None:
    """Also of a container that says nothing, or has ended already: a kubelet opens it as soon as it knows."""
    config = sandbox("logs", tmp_path)
    sandbox_id = cri.run_sandbox(config)
    for number in range(30):
        cri.run(sandbox_id, config, name=f"c{number}", command=["true"], log_path=f"c{number}.log")
        assert (tmp_path / f"c{number}.log").exists(), number
