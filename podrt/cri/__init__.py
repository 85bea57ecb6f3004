"""The runtime under a kubelet: the Container Runtime Interface v1 over the same engine that runs the Pods of the API.

Every module here that imports grpc does so through this package, so its one setting is made first: no fork handlers,
for the daemon never forks Python.
"""

from __future__ import annotations

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
