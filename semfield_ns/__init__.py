"""Semantic neural fields of static and dynamic scenes, as Nerfstudio methods."""

from semfield_ns import compat

__version__ = "0.1.0"

compat.install()
