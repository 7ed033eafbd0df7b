"""Gaussians of a synthetic scene divided into its objects: `python benchmarks/splats.py [--load-config RUN]`.

The Gaussians lie on the surfaces of the analytic scene, seen also from where no view looks, so it is known which object
each belongs to. The views vote with exact masks and depths, and with spoilt ones: masks whose edge is wrong by a pixel
or two, as segmentations are, and depth with noise. With a run of semantic-flow on a dynamic scene, such as that of the
demo, `semfield export` itself does it, with the masks and depths that the run renders, at one moment.

With `--strokes` there are no masks: the file is attached as a run (`semfield attach --splat`) without any cameras, and
one positive and one negative stroke, in the view of the run that shows an object best, select its Gaussians.

With `--things` there are no strokes either: everything that is found is compared with the objects, each with one thing
at most. With `--trained`, each scene is written as photos and `semfield attach --bake` fits the Gaussians; a Gaussian
then belongs to the object whose pixels show most of it.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from plyfile import PlyData
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from training import machine

from semfield_ns.cli.attach import attach
from semfield_ns.cli.export import export
from semfield_ns.export.splats import SplatWriter
from semfield_ns.export.views import Label, LabelledView
from semfield_ns.metrics.instances import at_size
from semfield_ns.scenes.formats.ply import write_ply
from semfield_ns.scenes.synthetic import AnalyticScene, make_scene, write_scene
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.simulation import simulate_strokes
from semfield_ns.sessions.masks import open_run, scene_views
from semfield_ns.sessions.session import Session

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.export.surface_splats import seen_splats, surface_splats


def view_of(scene: AnalyticScene, index: int) -> LabelledView:
    """An exact view from the scene's path."""
    c2w, size = scene.camera_at(index), scene.intrinsics
    truth = scene.render(c2w, samples_per_axis=1)
    pose = tuple(c2w[:3].reshape(-1).tolist())
    camera = ViewCamera(pose, size.fx, size.fy, size.cx, size.cy, size.width, size.height)
    rgb = (truth["rgb"] * 255).round().astype(np.uint8)
    return LabelledView(f"{index:03d}", camera, rgb, truth["instances"], truth["position"])


def spoilt(view: LabelledView, pixels: int, noise: float, rng: np.random.Generator) -> LabelledView:
    """Masks grown or shrunk by so many pixels, at random a view and object; depth with relative noise."""
    ids = view.ids.copy()
    for label in np.unique(view.ids[view.ids > 0]) if pixels else ():
        mask = view.ids == label
        if rng.random() < 0.5:
            ids[ndimage.binary_dilation(mask, iterations=pixels)] = label
        else:
            ids[mask & ~ndimage.binary_erosion(mask, iterations=pixels)] = 0
    origin = np.array(view.camera.camera_to_world).reshape(3, 4)[:, 3]
    factor = 1 + noise * ndimage.gaussian_filter(rng.standard_normal(view.ids.shape), 2) * 2 * np.pi**0.5 * 2
    assert view.points is not None
    return replace(view, ids=ids, points=origin + (view.points - origin) * factor[..., None])


def divide_by_run(load_config: Path, name: str, frame: int, count: int) -> None:
    """`semfield export` on Gaussians of a moving scene, at one of its frames; IoU of every class and object."""
    scene = make_scene(name, 0)
    vertices, owner = surface_splats(scene, count, time=float(frame))
    names = {entry.instance: entry.class_name for entry in scene.objects}
    print("| label of the run | Gaussians | IoU with its class | best IoU with an object |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        write_ply(Path(folder) / "all.ply", vertices)
        export(
            Path(folder) / "out",
            load_config=load_config,
            formats=(),
            views="train",
            at=frame / (scene.num_frames - 1),
            splat=Path(folder) / "all.ply",
        )
        ids = np.load(Path(folder) / "out" / "splats" / "labels.npy")
        labels = json.loads((Path(folder) / "out" / "labels.json").read_text())
    categories = {label["name"]: label["category"] for label in labels if not label["instance"]}
    category = np.zeros(max(label["id"] for label in labels) + 1, int)
    for label in labels:
        category[label["id"]] = label["category"]
    for label in labels:
        chosen = ids == label["id"]
        if not label["instance"]:  # a class with all of its objects
            chosen = category[ids] == label["category"]
        if not chosen.any():
            continue
        of_class = "-"
        if not label["instance"]:
            truth = np.isin(owner, [i for i, n in names.items() if i and categories[n] == label["category"]])
            of_class = f"{iou(chosen, truth):.3f}" if truth.any() else "-"
        objects = [iou(chosen, owner == instance) for instance in names if instance]
        print(f"| {label['name']} | {chosen.sum()} | {of_class} | {max(objects):.3f} |")


@contextmanager
def attached(name: str, seed: int, count: int, width: int, thickness: float) -> Iterator[tuple[Any, Any, np.ndarray]]:
    """The scene, the pipeline of its attached splat, and the object of each Gaussian."""
    scene = make_scene(name, seed, 24, width, width * 3 // 4)
    vertices, owner = seen_splats(scene, count, seed, thickness)
    with tempfile.TemporaryDirectory() as folder:
        write_ply(Path(folder) / "scene.ply", vertices, ["comment Vertical Axis: z"])
        with redirect_stdout(StringIO()):
            attach(splat=Path(folder) / "scene.ply", output_dir=Path(folder) / "out")
            _, pipeline = open_run(next((Path(folder) / "out").glob("scene/*/attached/config.yml")))
        yield scene, pipeline, owner


@contextmanager
def baked(name: str, seed: int, width: int) -> Iterator[tuple[Any, Any, np.ndarray]]:
    """The same of Gaussians fitted to photos; -1 where no view shows anything of one."""
    scene = make_scene(name, seed, 24, width, width * 3 // 4)
    with tempfile.TemporaryDirectory() as folder:
        with redirect_stdout(StringIO()):
            write_scene(name, Path(folder) / "scene", seed, 24, width, width * 3 // 4)
            attach(data=Path(folder) / "scene", bake=True, output_dir=Path(folder) / "out", preview=0)
            _, pipeline = open_run(next((Path(folder) / "out").glob("scene/*/baked/config.yml")))
        cloud, numbers = pipeline.model.cloud(), np.arange(1 + max(o.instance for o in scene.instances))
        total = torch.zeros(len(cloud.points), len(numbers))
        for index, view in enumerate(scene_views(pipeline, "train")):
            truth = scene.render(scene.camera_at(index), samples_per_axis=1)["instances"]
            truth = at_size(truth.astype(np.int64), (view.camera.height, view.camera.width))
            total += cloud.gather(view.camera, torch.from_numpy(truth[..., None] == numbers).float())[0]
        yield scene, pipeline, torch.where(total.sum(dim=1) > 0, total.argmax(dim=1), -1).numpy()


def find_without_strokes(name: str, chosen: range, count: int, width: int, thickness: float, trained: bool) -> None:
    """Attaches the splat of each scene, and prints how well its objects are among the things that are found."""
    found, shown = [], []
    print("| scene | objects | things | IoU, mean | least | as shown | seconds |\n|---|---|---|---|---|---|---|")
    for seed in chosen:
        with baked(name, seed, width) if trained else attached(name, seed, count, width, thickness) as run:
            scene, pipeline, owner = run
            cloud = pipeline.model.cloud()
            seen = cloud.nodes.seen[cloud.nodes.member].numpy()  # builds the graph, which strokes need too
            start = time.perf_counter()
            ids = cloud.things.numpy()
            seconds = time.perf_counter() - start
        objects = [entry.instance for entry in scene.instances if (owner == entry.instance).any()]
        fits = best_fits(ids[owner >= 0], owner[owner >= 0], objects, np.ones((owner >= 0).sum()))
        weighted = best_fits(ids[owner >= 0], owner[owner >= 0], objects, seen[owner >= 0])
        found, shown = [*found, *fits], [*shown, *weighted]
        row = f"{np.mean(fits):.3f} | {min(fits):.3f} | {np.mean(weighted):.3f} | {seconds:.1f}"
        print(f"| {seed} | {len(objects)} | {ids.max()} | {row} |", flush=True)
    print(f"\nMean of {len(found)} objects {np.mean(found):.3f}, least {min(found):.3f}; {np.mean(shown):.3f} as shown")


def best_fits(ids: np.ndarray, owner: np.ndarray, objects: list[int], weight: np.ndarray) -> list[float]:
    """IoU of each object with its thing, where each thing is taken by one object at most; 0 of those without."""
    overlaps = np.zeros((len(objects), int(ids.max())))
    for row, number in enumerate(objects):
        for thing in range(overlaps.shape[1]):
            mine, theirs = owner == number, ids == thing + 1
            overlaps[row, thing] = weight[mine & theirs].sum() / weight[mine | theirs].sum()
    fits = np.zeros(len(objects))
    rows, columns = linear_sum_assignment(-overlaps)
    fits[rows] = overlaps[rows, columns]
    return fits.tolist()


def select_by_strokes(seeds: range, count: int, width: int, draws: int, thickness: float, negative: bool) -> None:
    """Attaches the splat of each scene, draws, and prints the IoU of the Gaussians of every object."""
    found, slowest = [], 0.0
    print("| scene | object | Gaussians | IoU, mean | least |\n|---|---|---|---|---|")
    for seed in seeds:
        with attached("static", seed, count, width, thickness) as (scene, pipeline, owner):
            cloud, views = pipeline.model.cloud(), scene_views(pipeline, "train")
            owners = torch.from_numpy(owner[:, None] == np.array([o.instance for o in scene.instances])).float()
            truths = [cloud.show(view.camera, owners).numpy() > 0.5 for view in views]
            for number, thing in enumerate(scene.instances):
                best = max(range(len(views)), key=lambda place: truths[place][..., number].sum())
                fits = []
                for draw in range(draws):
                    session = pipeline.segmenter.session = Session()
                    target = session.add_object(thing.name)
                    for stroke in simulate_strokes(truths[best][..., number], views[best].camera, draw):
                        if negative or stroke.positive:
                            session.add_prompt(target, stroke)
                    start = time.perf_counter()
                    ids = pipeline.segmenter.selection().ids.cpu().numpy()
                    # The first stroke also builds the graph.
                    slowest = max(slowest, time.perf_counter() - start) if found or fits else 0.0
                    fits.append(iou(owner == thing.instance, ids == 1))
                found += fits
                mine = (owner == thing.instance).sum()
                print(f"| {seed} | {thing.name} | {mine} | {np.mean(fits):.3f} | {min(fits):.3f} |", flush=True)
    print(f"\nMean {np.mean(found):.3f}, least {min(found):.3f}; slowest further stroke {slowest:.2f} s")


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union."""
    return float((a & b).sum() / max((a | b).sum(), 1))


def main(
    load_config: Path | None = None,
    scene: str = "demo",
    frame: int = 12,
    seeds: int = 3,
    views: int = 24,
    count: int = 60_000,
    width: int = 252,
    strokes: int = 0,
    thickness: float = 0.005,
    things: bool = False,
    trained: bool = False,
    first: int = 0,
    kind: str = "static",
    negative: bool = True,
) -> None:
    """Divide, compare.

    Args:
        load_config: config.yml of a run of semantic-flow, whose masks and depths vote instead.
        scene: That it was trained on, a dynamic one with seed 0.
        frame: Of that scene.
        seeds: Scenes.
        views: A scene.
        count: Gaussians a scene, about.
        width: Of the views in pixels.
        strokes: Pairs of strokes for each object, one pair at a time, instead of masks.
        thickness: Of surfaces relative to the depth, with strokes.
        things: What is found without masks and without strokes.
        trained: Of Gaussians that were fitted to photos of the scenes.
        first: Seed of the first scene.
        kind: Of the scenes of which things are found: static or varied.
        negative: A negative stroke too, with strokes.
    """
    if things:
        size = width if trained else max(width, 504)
        find_without_strokes(kind, range(first, first + seeds), count, size, thickness, trained)
        print(f"\n{machine()}")
        return
    if strokes:
        select_by_strokes(range(first, first + seeds), count, max(width, 504), strokes, thickness, negative)
        print(f"\n{machine()}")
        return
    if load_config is not None:
        divide_by_run(load_config, scene, frame, count)
        print(f"\n{machine()}")
        return
    print("| masks and depth | objects | least IoU | mean IoU | Gaussians that no view sees |\n|---|---|---|---|---|")
    for title, pixels, noise in (
        ("exact", 0, 0.0),
        ("edges wrong by 1 px, depth by 1%", 1, 0.01),
        ("edges wrong by 2 px, depth by 2%", 2, 0.02),
    ):
        found, hidden = [], []
        for seed in range(seeds):
            static = make_scene("static", seed, views, width, width * 3 // 4)
            vertices, owner = surface_splats(static, count, seed)
            labels = [Label(o.instance, o.name, (200, 90, 40), o.instance, 1) for o in static.instances]
            rng = np.random.default_rng(seed)
            with tempfile.TemporaryDirectory() as folder:
                write_ply(Path(folder) / "all.ply", vertices)
                writer = SplatWriter(Path(folder), labels, Path(folder) / "all.ply", np.eye(4))
                for index in range(views):
                    writer.add(spoilt(view_of(static, index), pixels, noise, rng))
                writer.finish()
                ids, share = writer.votes.labels()
                hidden.append(float((share == 0).mean()))
                for label in labels:
                    part = PlyData.read(Path(folder) / "splats" / f"{label.file_name}.ply")["vertex"].data
                    mine, chosen = owner == label.id, ids == label.id
                    assert part.tobytes() == vertices[chosen].tobytes(), "another reader sees the same bits"
                    found.append(iou(mine, chosen))
        print(
            f"| {title} | {len(found)} | {min(found):.3f} | {np.mean(found):.3f} | {np.mean(hidden):.1%} |", flush=True
        )
    print(f"\n{machine()}")


if __name__ == "__main__":
    tyro.cli(main)
