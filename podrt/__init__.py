"""podrt: run Kubernetes Pods on a Linux machine."""

__version__ = "0.1.0"
