"""The ``podrt`` command: a client of the Kubernetes API that ``podrtd`` serves on a unix socket.

It imports no server package and nothing heavy at start-up: ``podrt get pods`` is a whole process each time, and most of
its time would be imports. YAML, rich and tarfile are imported by the verbs that use them, when they use them.
"""
