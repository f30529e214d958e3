"""A real Kubernetes on the bare machine, for the demo and for the tests.

Nothing here pulls an image, and nothing that a pod sends leaves the machine. README.md has the map.
"""
