"""Kubernetes API objects as typed, frozen msgspec structs, and what the API says about them.

The families: :mod:`~podrt.model.pod` (with container, volume, security, scheduling, status), ``node``, ``event``,
``namespace``, ``meta``. What is done with them: ``codec`` (bytes to objects and back, errors that name the field),
``defaults``, ``validation``, ``support`` (what this version implements), ``selectors``. ``kinds`` lists the resources.

All structs are immutable and share their parts freely: change one with :func:`msgspec.structs.replace`.
"""
