"""`semfield import-checkpoint`: weights of the official GSN and GNT code as a run folder."""

from pathlib import Path
from typing import Annotated, Literal

import tyro


def import_checkpoint(
    file: Annotated[Path, tyro.conf.Positional],
    kind: Literal["gsn", "gnt"],
    output_dir: Path = Path("outputs"),
    teacher: str = "dino",
    feature_dim: int | None = None,
) -> None:
    """Write a run folder with the weights of an official checkpoint, to be attached to scenes.

    Args:
        file: The official file, such as model_720000.pth.
        kind: The code that wrote it. GNT gives colour and depth, GSN features too.
        output_dir: The run goes to OUTPUT_DIR/FILE/gsn-paper/imported.
        teacher: Teacher that gives the source views' features, such as dino:FOLDER; features are meaningful only with
            the kind of teacher that the weights were trained with.
        feature_dim: Add an untrained feature head of so many channels to GNT, such as 64, and print the command that
            trains it.
    """
    from copy import deepcopy

    from semfield_ns.gsn import runs
    from semfield_ns.method_configs.gsn import gsn_paper

    preset = deepcopy(gsn_paper.config)
    preset.pipeline.model.teacher = teacher
    config = runs.import_checkpoint(file, kind, preset, output_dir, feature_dim)
    print(f"Imported: {config}")
    if feature_dim is not None:
        print("To train the feature head on a folder of scenes, without the rest unlearning colours:")
        print(f"  {runs.further_training(config)}")
    print("To look at a scene with it:")
    print(f"  semfield attach --load-config {config} --data SCENE")
