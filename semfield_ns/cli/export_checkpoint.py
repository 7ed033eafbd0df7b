"""`semfield export-checkpoint`: a run of gsn-paper as a checkpoint of the official GSN or GNT code."""

from pathlib import Path


def export_checkpoint(load_config: Path, output: Path) -> None:
    """Write the weights of a run in the official layout, without states of optimizers.

    Args:
        load_config: config.yml of a run whose network is the official one (gsn-paper).
        output: The file, such as model_720000.pth.
    """
    from semfield_ns.gsn import runs

    parts = runs.export_checkpoint(load_config, output)
    print(f"Exported {', '.join(parts)}: {output}")
