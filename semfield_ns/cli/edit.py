"""`semfield edit`: a run that shows its scene edited."""

from pathlib import Path

from semfield_ns.cli.hints import viewer_line
from semfield_ns.errors import SemfieldError


def edit(load_config: Path, edits: Path, output_dir: Path) -> None:
    """Move, remove, copy or recolour objects: an edited run.

    The new run renders the scene of the old one with the edits; nothing is trained or copied.

    Args:
        load_config: Folder of a trained run of semantic-flow, or its config.yml.
        edits: JSON or YAML file with a list of edits, such as [{kind: remove, target: ball}]. Kinds: remove, move,
            duplicate, mirror, recolor, background. Fields: target (a class, an object such as ball#2, or left out for
            everything that moves), box (where it is), translation, axis, degrees, scale, color.
        output_dir: Folder of the new run, which opens like any other.
    """
    import torch
    import yaml

    from semfield_ns.cli.one_scene import read_run
    from semfield_ns.editing.edits import edits_json, read_edits, require_classes
    from semfield_ns.io import write_text
    from semfield_ns.semantic_flow.pipeline import decode_classes

    config = read_run(load_config)
    known = read_edits(edits)
    if not hasattr(config.pipeline.model, "edits"):
        raise SemfieldError(
            f"{load_config} is a run of {config.method_name}: only runs of semantic-flow can be edited."
        )
    checkpoints = sorted(Path(config.get_checkpoint_dir()).glob("step-*.ckpt"))
    if not checkpoints:
        raise SemfieldError(f"{config.get_checkpoint_dir()} has no checkpoint: train the run before it is edited.")
    state = torch.load(checkpoints[-1], map_location="cpu", weights_only=True, mmap=True)["pipeline"]
    require_classes(known, [entry.name for entry in decode_classes(state)], edits)
    # A run reads its checkpoints from where its own name says, so an edited run keeps the name.
    stored = (output_dir / "edits.json").resolve()
    stored.parent.mkdir(parents=True, exist_ok=True)
    write_text(stored, edits_json(known))
    config.pipeline.model.edits = stored
    write_text(output_dir / "config.yml", yaml.dump(config))
    print(f"Wrote {output_dir / 'config.yml'} with {len(known)} edit{'s' * (len(known) != 1)}")
    print(viewer_line(output_dir / "config.yml"))
