"""Objects, their revisions, and who is told of them.

``database`` keeps rows in SQLite; ``store`` puts revisions, a typed cache and watches over it and knows no rule of any
kind; ``objects`` is what the API and the node agent call: defaults, validation, graceful deletion, namespaces;
``events`` records Events. One process, one thread (the daemon's event loop) uses them; every call is synchronous.
"""
