"""Capability sets of a real process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CODE = """
import json, os, sys
from podrt.linux import caps, libc
bounding, ambient, uid = json.loads(sys.argv[1])
caps.drop_bounding(bounding)
caps.keep_over_setuid()
os.setgroups([])
os.setgid(uid)
os.setuid(uid)
caps.apply(bounding, ambient, uid)
os.execv("/bin/cat", ["cat", "/proc/self/status"])
"""


def sets(bounding: list[str], ambient: list[str], uid: int) -> dict[str, int]:
    command = [sys.executable, "-c", CODE, json.dumps([bounding, ambient, uid])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    lines = (line.split(":\t") for line in done.stdout.splitlines())
    return {name: int(value, 16) for name, value in lines if name.startswith("Cap")}


NET_BIND, CHOWN, CHECKPOINT = 1 << 10, 1, 1 << 40


@pytest.mark.parametrize("restore", [False, True])
def test_root_gets_the_bounding_set(restore: bool) -> None:
    names = ["CAP_CHOWN", "CAP_NET_BIND_SERVICE", *(["CAP_CHECKPOINT_RESTORE"] if restore else [])]
    mask = NET_BIND | CHOWN | (CHECKPOINT if restore else 0)
    assert sets(names, [], 0) == {"CapInh": 0, "CapPrm": mask, "CapEff": mask, "CapBnd": mask, "CapAmb": 0}


def test_another_user_gets_the_ambient_set() -> None:
    found = sets(["CAP_CHOWN", "CAP_NET_BIND_SERVICE"], ["CAP_NET_BIND_SERVICE"], 1000)
    assert found == {
        "CapInh": NET_BIND,
        "CapPrm": NET_BIND,
        "CapEff": NET_BIND,
        "CapBnd": NET_BIND | CHOWN,
        "CapAmb": NET_BIND,
    }


def test_another_user_gets_nothing() -> None:
    found = sets(["CAP_CHOWN"], [], 1000)
    assert found == {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": CHOWN, "CapAmb": 0}
