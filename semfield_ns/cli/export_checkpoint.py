"""`semfield export-checkpoint`: a run of gsn-paper as a checkpoint of the official GSN or GNT code."""

from pathlib import Path


def export_checkpoint(load_config: Path, output: Path) -> None:
    """Write the weights of a run for the official code.

    The states of the optimizers are left out.

    Args:
        load_config: Folder of a trained run with the official network (gsn-paper), or its config.yml.
        output: File to write, such as model_720000.pth.
    """
    from semfield_ns.gsn import runs

    parts = runs.export_checkpoint(load_config, output)
    print(f"Exported {', '.join(parts)}: {output}")
