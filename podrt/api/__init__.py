"""The Kubernetes dialect over HTTP on a unix socket, and podrt's own API group for images.

Handlers parse, call one method of the store, the agent or the image store, and format. ``server`` puts them together.
"""
