"""The moving picture of the README, from a finished demo.

    python benchmarks/hero.py --demo outputs/demo --output docs/images

A stroke is drawn on the ball, its mask appears, time passes with the mask and then with the classes, the ball is
removed and the balloon copied. All is rendered by the run of the demo; only the stroke is drawn onto the picture.
Run it in the folder in which the demo ran. It writes hero.webp, and strokes.jpg with three of its moments.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from captions import captioned, pixels, save, titled_grid
from PIL import Image, ImageDraw
from torch import Tensor

from semfield_ns.cli.camera_path import trajectory
from semfield_ns.editing.edits import Edit
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.sessions.masks import open_run, scene_views

FPS = 12
TARGET = "ball"
COLOR = (255, 145, 0)
"""of the mask; nothing in the scene has it"""
STROKE = 15
"""points of the stroke"""
START, MIDDLE, END = 0.22, 0.45, 0.97
"""moments of the video"""
WITHOUT = (Edit("remove", TARGET),)
COPIED = (*WITHOUT, Edit("duplicate", "balloon", translation=(0.95, 0.0, 0.25)))


@dataclass(frozen=True)
class Moment:
    """One frame."""

    picture: np.ndarray
    """[height, width, 3] uint8"""
    caption: str
    opacity: float = 1.0
    """of the caption"""
    still: str = ""
    """its title in strokes.jpg, if it is one of those pictures"""


class Film:
    """The frames, one after the other.

    Args:
        load_config: of the demo's run.
        scale: of the pictures, against those of the training.
    """

    def __init__(self, load_config: Path, scale: float) -> None:
        _, self.pipeline = open_run(load_config)
        self.model, self.segmenter = self.pipeline.model.eval(), self.pipeline.segmenter
        views = [view.camera for view in scene_views(self.pipeline, "train")]
        self.template = views[0].scaled(scale)
        self.poses = np.tile(np.eye(4), (len(views), 1, 1))
        self.poses[:, :3] = np.array([view.camera_to_world for view in views]).reshape(-1, 3, 4)
        self.times = np.array([view.time for view in views])
        self.ball = [c.name for c in self.model.label_map.classes].index(TARGET)

    def camera(self, place: float, time: float) -> ViewCamera:
        """The camera at a place of its path, from 0 to 1, at a time in [0, 1]."""
        poses, _ = trajectory(self.poses, self.times, "freeze-time", 1, place)
        return replace(self.template, camera_to_world=tuple(poses[0, :3].reshape(-1).tolist()), time=time)

    @torch.no_grad()
    def seen(self, camera: ViewCamera, *names: str) -> list[Tensor]:
        """Outputs of the model for a camera."""
        cameras = camera.cameras()
        outputs = self.model.present(self.model.raw_outputs_for_camera(cameras), cameras)
        return [outputs[name] for name in names]

    def stroke(self, camera: ViewCamera) -> list[tuple[float, float]]:
        """A wave across the ball."""
        (ids,) = self.seen(camera, "semantics")
        inside = (ids[..., 0] == self.ball).nonzero().float()
        y, x = inside.mean(dim=0).tolist()
        reach = inside[:, 1].std().item()
        across = np.linspace(-1, 1, STROKE)
        return [(x + reach * t, y - 0.4 * reach * np.sin(np.pi * t)) for t in across]

    def frames(self) -> Iterator[Moment]:
        """All of the film."""
        camera = self.camera(START, START)
        points = self.stroke(camera)
        (plain,) = self.seen(camera, "rgb")
        for step in range(14):
            share, last = min(max(step - 1, 0) / 10, 1), step == 13
            picture = drawn(pixels(plain), points, share)
            yield Moment(picture, "Draw a stroke on an object", min(1, step / 3), "a stroke on the ball" * last)

        session = self.segmenter.session
        session.add_stroke(session.add_object(TARGET, COLOR), camera, points)
        for share in (0.15, 0.35, 0.6, 0.85, *[1.0] * 6):
            picture = drawn(pixels(plain.lerp(self.masked(camera), share)), points, 1.0)
            yield Moment(picture, "It is found in this view ...")

        for place in START + (END - START) * eased(26):
            still = "its mask, at another time and place" * bool(place == END)
            yield Moment(pixels(self.masked(self.camera(place, place))), "... in every view, at all times", still=still)

        for step, place in enumerate(END - (END - MIDDLE) * eased(26)):
            rgb, classes = self.seen(self.camera(place, place), "rgb", "semantics_colormap")
            yield Moment(wiped(pixels(rgb), pixels(classes), step / 13), "Every pixel has a class")

        # Time stands still and the camera swings, so that the place of the ball is seen from several sides.
        for step, place in enumerate(MIDDLE + 0.35 * np.sin(np.linspace(0, 2 * np.pi, 32))):
            camera = self.camera(place, MIDDLE)
            rgb, classes = self.seen(camera, "rgb", "semantics_colormap")
            without = self.edited(camera, WITHOUT)
            picture = classes.lerp(rgb, min((step + 1) / 5, 1)).lerp(without, min(max(step - 7, 0) / 6, 1))
            yield Moment(pixels(picture), "Remove the ball: nothing is trained again")

        # Back to where the film begins, which is also where things were seen whole before others hid them.
        for step, place in enumerate(MIDDLE + (START - MIDDLE) * eased(28)):
            camera = self.camera(place, place)
            without, copied = self.edited(camera, WITHOUT), self.edited(camera, COPIED)
            picture = pixels(without.lerp(copied, min(step / 6, 1)))
            still = "the ball removed, the balloon copied" * (step == 10)
            yield Moment(picture, "Copy the balloon: the copy moves too", still=still)

    def masked(self, camera: ViewCamera) -> Tensor:
        """The picture with the mask of the session."""
        return self.segmenter.segment(camera).overlay

    def edited(self, camera: ViewCamera, edits: tuple[Edit, ...]) -> Tensor:
        """The picture of the edited scene."""
        self.model.editor.change(edits)
        (rgb,) = self.seen(camera, "rgb")
        self.model.editor.change(())
        return rgb


def main(
    demo: Path = Path("outputs/demo"), output: Path = Path("docs/images"), scale: float = 2.0, quality: int = 55
) -> None:
    """Render the film.

    Args:
        demo: folder of a finished demo on Gaussians.
        output: folder for hero.webp and strokes.jpg.
        scale: of the pictures, against those of the demo.
        quality: of the WebP, from 0 to 100.
    """
    (config,) = demo.glob("synthetic/*/run/config.yml")
    moments = list(Film(config, scale).frames())
    pictures = [captioned(Image.fromarray(m.picture), m.caption, m.opacity) for m in moments]
    output.mkdir(parents=True, exist_ok=True)
    first, *rest = pictures
    first.save(
        output / "hero.webp",
        save_all=True,
        append_images=rest,
        duration=round(1000 / FPS),
        loop=0,
        quality=quality,
        method=6,
    )
    stills = [Image.fromarray(m.picture).resize((320, 240), Image.Resampling.LANCZOS) for m in moments if m.still]
    titles = [m.still for m in moments if m.still]
    save(titled_grid([[np.array(still) for still in stills]], column_titles=titles), output / "strokes.jpg")
    print(f"{output / 'hero.webp'}: {len(pictures)} frames, {(output / 'hero.webp').stat().st_size / 1e6:.1f} MB")


def eased(count: int) -> np.ndarray:
    """Numbers from 0 to 1 that start and stop gently."""
    t = np.linspace(0, 1, count)
    return t * t * (3 - 2 * t)


def drawn(picture: np.ndarray, points: list[tuple[float, float]], share: float) -> np.ndarray:
    """The first part of a stroke, white with a dark rim, on a picture."""
    image = Image.fromarray(picture)
    if share <= 0:
        return picture
    x, y = np.array(points).T
    places = np.linspace(0, (len(points) - 1) * share, 40)
    line = np.stack([np.interp(places, range(len(points)), values) for values in (x, y)], axis=1)
    line = [tuple(place) for place in line.tolist()]
    draw = ImageDraw.Draw(image)
    for width, color in ((10, (20, 20, 20)), (6, (255, 255, 255))):
        draw.line(line, fill=color, width=width, joint="curve")
        for cx, cy in (line[0], line[-1]):
            draw.ellipse((cx - width / 2, cy - width / 2, cx + width / 2, cy + width / 2), fill=color)
    return np.array(image)


def wiped(before: np.ndarray, after: np.ndarray, share: float) -> np.ndarray:
    """The second picture on the left `share` of the first, with a white line between."""
    edge = round(min(share, 1) * before.shape[1])
    picture = before.copy()
    picture[:, :edge] = after[:, :edge]
    if share < 1:
        picture[:, max(edge - 1, 0) : edge + 2] = 255
    return picture


if __name__ == "__main__":
    tyro.cli(main)
