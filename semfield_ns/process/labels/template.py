"""What a person needs to label some frames."""

from pathlib import Path

import numpy as np

from semfield_ns.io import write_json, write_text
from semfield_ns.process.frames import frame_name


def write_template(folder: Path, images: Path, count: int) -> None:
    """What a person needs to label some frames: which ones, and examples of the files."""
    best = [frame_name(int(n)) for n in np.unique(np.linspace(0, count - 1, min(4, count)).round())]
    classes = [
        {"name": "background", "color": [0, 0, 0], "dynamic": False},
        {"name": "person", "color": [224, 56, 56], "dynamic": True},
    ]
    write_json(folder / "clicks.json", {"classes": classes, "clicks": {name: [] for name in best}})
    text = f"""Label some frames, and repeat the command with --labels.

Frames: ../{images.name}/*.png. Labels of {", ".join(best)} serve best: they are spread over the video.

- Clicks: copy clicks.json, list your classes, and for each frame clicks [class, x, y] in pixels of the frame.
- CVAT: make a task of the frames, export "Segmentation mask 1.1", unpack it: --labels that folder.
- COCO (CVAT, Label Studio, Roboflow): --labels instances.json.
- Label Studio brush: export "Brush labels to PNG", --labels that folder with a tasks.json ({{"12": "{best[0]}.png"}}).
- SAM 2: a folder of masks for each object, or PNGs of object ids; names.json ({{"1": "person"}}) names them.

Keep the names of the frames. Where the original images have names like them, add --frame-names picked.
"""
    write_text(folder / "README.txt", text)
