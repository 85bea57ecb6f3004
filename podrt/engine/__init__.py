"""The engine: sandboxes, containers, exec, logs and stats, in the verbs of the CRI. See
:class:`podrt.engine.engine.Engine`.
"""
