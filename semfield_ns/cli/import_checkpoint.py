"""`semfield import-checkpoint`: weights of the official GSN and GNT code as a run folder."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import tyro

from semfield_ns.cli.hints import typed


def import_checkpoint(
    file: Annotated[Path, tyro.conf.Positional],
    kind: Literal["gsn", "gnt"],
    output_dir: Path = Path("outputs"),
    teacher: str = "dino",
    feature_dim: int | None = None,
) -> None:
    """Make a run of an official checkpoint, for attach.

    Args:
        file: The official checkpoint, such as model_720000.pth.
        kind: The code that wrote it. GNT renders colour and depth; GSN renders features too.
        output_dir: The run goes to OUTPUT_DIR/FILE/gsn-paper/imported.
        teacher: Image encoder for the features of the source views, such as dino:FOLDER. Features are meaningful only
            with the kind of encoder that the weights were trained with.
        feature_dim: Add an untrained feature head with this many channels, such as 64, to GNT, and print the command
            that trains it.
    """
    from copy import deepcopy

    from semfield_ns.gsn import runs
    from semfield_ns.method_configs.gsn import gsn_paper

    preset = deepcopy(gsn_paper.config)
    preset.pipeline.model.teacher = teacher
    config = runs.import_checkpoint(file, kind, preset, output_dir, feature_dim)
    print(f"Imported: {config}")
    if feature_dim is not None:
        print("To train the feature head on a folder of scenes, and keep the colours as they are:")
        print(f"  {runs.further_training(config)}")
    print("To see a scene with it:")
    print(f"  {typed('semfield')} attach --load-config {shlex.quote(str(config.parent))} --data SCENE")
