"""Videos of a run with objects removed, moved and duplicated: `python benchmarks/editing_video.py --load-config RUN`.

For each edit: `semfield edit`, and `ns-render camera-path` along the training path. Videos go to --output-dir; where
they show a video whose terms of use are not settled, they are not for publication.
"""

import subprocess
import sys
from pathlib import Path

import tyro

COMMANDS = Path(sys.executable).parent


def main(
    load_config: Path,
    output_dir: Path = Path("outputs/edited_videos"),
    target: str = "balloon",
    shift: tuple[float, float, float] = (0.6, 0.0, 0.0),
    seconds: float = 2.0,
    fps: float = 12.0,
    scale: float = 1.0,
) -> None:
    """Render what is, and the three edits.

    Args:
        load_config: config.yml of a run of semantic-flow.
        output_dir: for edits and videos.
        target: class or object to edit.
        shift: translation of what is moved and of the duplicate, in the scene's own units.
        seconds: length of each video.
        fps: of each video.
        scale: of the video's pixels against the training pictures.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    path = output_dir / "path.json"
    run("semfield", "camera-path", "--load-config", load_config, "--output", path, "--seconds", seconds, "--fps", fps)
    edits = {
        "as_it_is": "[]",
        "removed": f"[{{kind: remove, target: {target}}}]",
        "moved": f"[{{kind: move, target: {target}, translation: {list(shift)}}}]",
        "duplicated": f"[{{kind: duplicate, target: {target}, translation: {list(shift)}}}]",
    }
    for name, text in edits.items():
        video = output_dir / f"{name}.mp4"
        if video.is_file():
            continue
        (output_dir / f"{name}.yml").write_text(text)
        run(
            *("semfield", "edit", "--load-config", load_config, "--edits", output_dir / f"{name}.yml"),
            *("--output-dir", output_dir / name),
        )
        unfinished = output_dir / f"unfinished_{name}.mp4"
        run(
            *("ns-render", "camera-path", "--load-config", output_dir / name / "config.yml"),
            *("--camera-path-filename", path, "--output-path", unfinished, "--downscale-factor", 1 / scale),
            *("--rendered-output-names", "rgb", "semantics_colormap"),
        )
        unfinished.rename(video)
        print(f"Wrote {video}", flush=True)


def run(program: str, *arguments: object) -> None:
    """Runs a command that is installed beside this Python."""
    subprocess.run([str(COMMANDS / program), *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    tyro.cli(main)
