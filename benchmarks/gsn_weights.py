"""Makes the weights that come with the package of a run of gsn-tiny.

    python benchmarks/gsn_weights.py outputs/SCENES/gsn-tiny/TIME/config.yml

`gsn_recipe.py` trains it; for the file that is there now, the run without mold_gold_cape, whose photos may not be used
commercially.
"""

from pathlib import Path

import tyro

from semfield_ns.gsn.pretrained import TINY, pack


def main(load_config: tyro.conf.Positional[Path], file: Path = TINY) -> None:
    """Pack the newest checkpoint of a run.

    Args:
        load_config: config.yml of the run.
        file: the archive.
    """
    print(f"{file}: {pack(load_config, file) / 1000:.0f} kB")


if __name__ == "__main__":
    tyro.cli(main)
