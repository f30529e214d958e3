"""The main job on a bare machine, step by step: `make demo`. The end-to-end tests use the same steps."""
