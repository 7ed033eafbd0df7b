"""Whether something of Nerfstudio's is one of our methods."""


def is_ours(pipeline: object) -> bool:
    """Whether a pipeline, or the configuration of one, is of this package."""
    return any(kind.__module__.partition(".")[0] == "semfield_ns" for kind in type(pipeline).__mro__)
