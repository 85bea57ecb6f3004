"""Measures podrt on this machine: against the kernel's floor, and against podman. `make bench` runs it."""
