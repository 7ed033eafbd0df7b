"""Runs of one scene, for commands that need one."""

from pathlib import Path
from typing import Any

from semfield_ns.errors import SemfieldError
from semfield_ns.run_folder import find_scene, run_config


def read_run(load_config: Path) -> Any:
    """The configuration of a run of one scene.

    Raises:
        SemfieldError: there is no such run, or it has several scenes.
    """
    import yaml

    load_config = run_config(load_config)
    # Nerfstudio's own way to read a run's configuration; like every ns-* command it trusts the file.
    try:
        config = yaml.load(load_config.read_text(encoding="utf-8"), Loader=yaml.Loader)
    except (UnicodeDecodeError, yaml.YAMLError):
        config = None
    if not hasattr(config, "pipeline"):
        raise SemfieldError(
            f"{load_config} cannot be read as the config.yml of a run: give the file of that name that training wrote."
        )
    find_scene(config, load_config)
    several = getattr(config.pipeline.datamanager, "scene_folders", None)
    if several is not None and (names := list(several())):
        files = ", ".join(f"{name.replace('/', '_')}.yml" for name in names)
        raise SemfieldError(
            f"{load_config} is a run of {len(names)} scenes: give the config of one of them, in "
            f"{load_config.parent / 'scenes'}: {files}."
        )
    return config
