"""exec, attach and port forwarding on the wire, for both doors (``api`` and ``cri``).

Limits: it knows HTTP upgrades, SPDY/3.1, websockets and the engine's sessions; no Kubernetes object, no Pod, no CRI
message. What may be done is decided by the door before it calls :mod:`podrt.streaming.serve`.
"""
