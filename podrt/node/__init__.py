"""Where Kubernetes objects meet the engine: one worker for each Pod of this node.

``facts`` gathers what is there, ``plan`` and ``status`` decide from it (pure functions), ``worker`` acts, ``agent``
owns the workers. ``convert``, ``env``, ``resources`` and ``volumes`` translate a Pod into the engine's specs.
"""
