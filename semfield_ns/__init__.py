"""Semantic neural fields of static and dynamic scenes, as Nerfstudio methods."""

from semfield_ns import compat


def __getattr__(name: str) -> str:
    # Looked up when it is asked for: sources that are not installed have no version, and can be imported.
    if name == "__version__":
        from importlib.metadata import version

        return version("semfield-ns")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


compat.install()
