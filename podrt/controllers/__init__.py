"""The workload controllers: what makes, keeps and removes Pods for Deployments, Jobs and the like.

``queue`` is the one work queue, ``manager`` routes changes of the store into it, ``index`` knows who owns what. Each
kind has a file with pure functions (what is to be done, as values) and one with the actor that does it. The store is
synchronous and in this process: a sync reads what is true now and writes before anything else can run, so nothing is
expected, only seen, and a restart at any point goes on from what is stored.
"""
