"""The one exception of this package: its text is all that a person gets, so it names the cause and what to do."""


class ClusterError(RuntimeError):
    """Something that the person who runs the cluster has to read; shown without a traceback."""
