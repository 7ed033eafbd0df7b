"""Simulated strokes in one training view against the truth in held-out views: `semfield evaluate --protocol strokes`.

Every method gets the same strokes:

- this run: the session's segmentation of the rendered held-out view, as in the viewer;
- upper reference: the same with the teacher's features of the held-out picture itself, which nobody has who looks from
  a new place;
- reference, matching only: its features matched with those of the strokes and nothing else;
- relative rule: nothing but whether features of the held-out picture are nearer to those of the positive stroke than to
  those of the negative one, for any number of teachers;
- nearest view, warped: the raw teacher's mask of the nearest training picture, carried by the rendered depth;
- nearest view, copied: the same mask, pixel for pixel.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.io import read_image
from semfield_ns.metrics.instances import at_size
from semfield_ns.scene_model import SceneModel
from semfield_ns.scenes.formats import read_scene
from semfield_ns.scenes.scene import Frame
from semfield_ns.segmentation.appearance import appearances
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.matching import similarity
from semfield_ns.segmentation.prompts import Stroke
from semfield_ns.segmentation.simulation import simulate_strokes
from semfield_ns.segmentation.views import FeatureView
from semfield_ns.sessions.masks import NamedView, open_run, scene_views
from semfield_ns.sessions.segmenter import Segmenter
from semfield_ns.sessions.session import Session
from semfield_ns.sessions.views import ModelViews

THIS_RUN = "this run"
UPPER = "upper reference: teacher on the held-out picture"
MATCHED = "the same, matching only"
WARPED = "nearest training view, warped"
COPIED = "nearest training view, copied"
METHODS = (THIS_RUN, WARPED, COPIED, UPPER, MATCHED)
"""of every run with a teacher; rows of the relative rule come after them"""

AREA = (0.02, 0.8)
"""share of a view that an object has where strokes are drawn on it"""
MIN_SEEN = 0.002
"""share of a held-out view that an object has where it is evaluated"""
MAX_TARGETS = 4
"""objects of a scene with many, the largest ones"""
BUDGET = 4 << 30

Mask = Bool[np.ndarray, "H W"]
PictureFeatures = Callable[[Path, tuple[int, int]], Float[Tensor, "H W F"]]
"""A teacher's features of a picture of the scene, at a size (height, width)."""


@dataclass(frozen=True)
class Figures:
    """How well a mask fits the truth."""

    iou: float
    accuracy: float
    precision: float
    """average precision of the scores"""


@dataclass(frozen=True)
class Sample:
    """One method on one object in one held-out view."""

    method: str
    target: str
    seed: int
    view: str
    figures: Figures


@dataclass(frozen=True)
class StrokeEvaluation:
    """What was found."""

    samples: list[Sample]
    pictures: dict[str, Float[Tensor, "H W 3"]]
    """predictions alone: each method's mask of a view, side by side, for the first seed"""

    @property
    def methods(self) -> list[str]:
        """Those that were judged, in the order of pictures and table: only runs with a teacher have references."""
        judged = {sample.method for sample in self.samples}
        return [method for method in METHODS if method in judged] + sorted(judged - {*METHODS})

    def table(self) -> str:
        """A Markdown table: means over views and objects; IoU with the standard deviation over the seeds."""
        lines = ["| method | IoU | spread over seeds | accuracy | average precision |", "|---|---|---|---|---|"]
        for method in self.methods:
            own = [sample for sample in self.samples if sample.method == method]
            seeds = sorted({sample.seed for sample in own})
            means = [np.mean([s.figures.iou for s in own if s.seed == seed]) for seed in seeds]
            accuracy, precision = (
                np.mean([getattr(s.figures, name) for s in own]) for name in ("accuracy", "precision")
            )
            spread = f"{np.std(means, ddof=1):.3f}" if len(means) > 1 else "-"
            lines.append(f"| {method} | {np.mean(means):.3f} | {spread} | {accuracy:.3f} | {precision:.3f} |")
        return "\n".join(lines)


def compare(mask: Mask, scores: Float[np.ndarray, "H W"], truth: Mask) -> Figures:
    """IoU, accuracy and average precision of one view."""
    order = np.argsort(-scores.ravel(), kind="stable")
    hits = truth.ravel()[order]
    precision = np.cumsum(hits) / np.arange(1, hits.size + 1)
    return Figures(
        float((mask & truth).sum() / max((mask | truth).sum(), 1)),
        float((mask == truth).mean()),
        float(precision[hits].mean()) if hits.any() else float("nan"),
    )


class PictureViews(ModelViews):
    """Views with the features that the teacher finds in the pictures themselves; the rest is rendered.

    Args:
        model: that knows its pictures' features.
        rendered: renders the views.
        images: image files by camera.
    """

    def __init__(
        self, model: SceneModel, rendered: Callable[[ViewCamera], FeatureView], images: Mapping[ViewCamera, str | None]
    ) -> None:
        super().__init__(model)
        self._rendered, self._images = rendered, images

    def render_view(self, camera: ViewCamera) -> FeatureView:
        view = self._rendered(camera)
        rgb = self._picture(camera)["rgb"].to(view.rgb)
        return replace(view, rgb=rgb, features=self.features(camera), photo=True)

    def features(self, camera: ViewCamera) -> Float[Tensor, "H W F"]:
        """The teacher's features of the picture that a camera took, of unit norm."""
        return F.normalize(self._picture(camera)["features"], dim=-1)

    def _picture(self, camera: ViewCamera) -> Mapping[str, Tensor]:
        return self.model.picture_outputs(Path(str(self._images[camera])), (camera.height, camera.width))


@torch.no_grad()
def evaluate_strokes(
    load_config: Path,
    seeds: Sequence[int] = range(5),
    max_views: int = 100,
    provide: Callable[[SceneModel], ModelViews] = ModelViews,
    describe: Callable[[SceneModel], Mapping[str, PictureFeatures]] = lambda model: {},
) -> StrokeEvaluation:
    """Draws simulated strokes into training views of a run's scene, and judges the held-out views.

    Args:
        load_config: config.yml of a run; its scene has object masks or instances.
        seeds: of the training view and of the strokes.
        max_views: held-out views of the scene, at most.
        provide: makes the renderer of views of a model.
        describe: teachers by name, for the relative rule.

    Raises:
        SemfieldError: there is no held-out view, or no truth.
    """
    from rich.progress import track

    config, pipeline = open_run(load_config)
    model = pipeline.model
    train, test = scene_views(pipeline, "train"), scene_views(pipeline, "test")[:max_views]
    cameras = {view.image for view in train}
    test = [view for view in test if view.image not in cameras]
    if not test:
        raise SemfieldError(f"The scene of {load_config} holds no view out of training: strokes cannot be judged.")
    manager = config.pipeline.datamanager
    truths = true_ids(Path(manager.data or manager.dataparser.data), [*train, *test])
    run = Segmenter(Session(), provide(model), BUDGET)
    pictures = None
    if "features" in model.picture_outputs(Path(str(train[0].image)), (8, 8)):
        pictures = PictureViews(model, run.view, {view.camera: view.image for view in (*train, *test)})
    found, teachers = StrokeEvaluation([], {}), describe(model)
    for seed in track(list(seeds), description="Strokes", transient=True):
        for target in targets(truths, train):
            drawn = choose_view(train, truths, target, seed)
            if drawn is None:
                continue
            strokes = simulate_strokes(truths[drawn.name] == target, drawn.camera, seed)
            predict = _predictor(run, pictures, strokes, train)
            for view in test:
                truth = truths[view.name] == target
                if truth.mean() < MIN_SEEN:
                    continue
                masks = []
                predicted = predict(view)
                for name, features in teachers.items():
                    predicted[f"relative rule, {name}"] = relative_rule(features, drawn, strokes, view)
                for method, (mask, scores) in predicted.items():
                    figures = compare(mask, scores, truth)
                    found.samples.append(Sample(method, str(target), seed, view.name, figures))
                    masks.append(torch.from_numpy(mask).float()[..., None].expand(-1, -1, 3))
                if seed == seeds[0]:
                    found.pictures[f"{view.name}_{target}"] = torch.cat(masks, dim=1)
    if not found.samples:
        raise SemfieldError(f"No object of the scene of {load_config} is large enough in a training view.")
    return found


def _predictor(
    run: Segmenter, pictures: PictureViews | None, strokes: Sequence[Stroke], train: Sequence[NamedView]
) -> Callable[[NamedView], dict[str, tuple[Mask, np.ndarray]]]:
    """The methods that work without the truth, for a set of strokes."""
    session = Session()
    number = session.add_object("target")
    for stroke in strokes:
        session.add_prompt(number, stroke)
    run.session = session

    def predict(view: NamedView) -> dict[str, tuple[Mask, np.ndarray]]:
        result = run.segment(view.camera)
        found = {THIS_RUN: (result.masks[0].cpu().numpy(), result.scores[0].cpu().numpy())}
        return found if pictures is None else found | references(view.camera, pictures)

    def references(camera: ViewCamera, pictures: PictureViews) -> dict[str, tuple[Mask, np.ndarray]]:
        upper = Segmenter(session, pictures, BUDGET)
        drawn = strokes[0].camera
        known = pictures.pictures()
        scene = None if known is None else known.features.flatten(0, 2)
        views = {drawn: upper.view(drawn)}
        (looks,) = appearances([strokes], views, pictures.text_features, scene, learned=scene is not None)

        def matched(other: ViewCamera) -> Float[Tensor, "H W"]:
            features = pictures.features(other)
            return looks.similarity(features.flatten(0, 1)).view(features.shape[:2])

        nearest = min((view.camera for view in train), key=lambda other: np.linalg.norm(other.centre - camera.centre))
        copied = matched(nearest)
        points = run.view(camera).points
        assert points is not None, "models know depth"
        pixels, _, visible = nearest.project(points)
        row = pixels[..., 1].long().clamp(0, nearest.height - 1)
        column = pixels[..., 0].long().clamp(0, nearest.width - 1)
        scores = {
            WARPED: torch.where(visible, copied[row, column], 0.0),
            COPIED: F.interpolate(copied[None, None], size=(camera.height, camera.width))[0, 0],
            MATCHED: matched(camera),
        }
        found = {name: ((value > 0.5).cpu().numpy(), value.cpu().numpy()) for name, value in scores.items()}
        result = upper.segment(camera)
        return found | {UPPER: (result.masks[0].cpu().numpy(), result.scores[0].cpu().numpy())}

    return predict


def relative_rule(
    features: PictureFeatures, drawn: NamedView, strokes: Sequence[Stroke], view: NamedView
) -> tuple[Mask, np.ndarray]:
    """Mask and scores of a held-out picture: which of two strokes its features are nearer to."""
    there = features(Path(str(drawn.image)), (drawn.camera.height, drawn.camera.width))
    positive, negative = (there[stroke.pixels(*there.shape[:2]).to(there.device)] for stroke in strokes)
    size = view.camera.height, view.camera.width
    flat = features(Path(str(view.image)), size).flatten(0, 1)
    scores = similarity(flat, positive, negative).view(size).cpu().numpy()
    return scores > 0.5, scores


def true_ids(data: Path, views: Sequence[NamedView]) -> dict[str, np.ndarray]:
    """True ids of every view at its size, 0 for background: of object masks, or of instances.

    Raises:
        SemfieldError: a view has none of them.
    """
    scene = read_scene(data)
    frames = {str(frame.image_path): frame for frame in (*scene.train, *scene.test)}
    found = {}
    for view in views:
        frame = frames.get(str(view.image))
        ids = None if frame is None else _ids(frame)
        if ids is None:
            raise SemfieldError(f"{view.image}: there is neither an object mask nor an instance image to judge by.")
        found[view.name] = at_size(ids, (view.camera.height, view.camera.width))
    return found


def _ids(frame: Frame) -> np.ndarray | None:
    if frame.object_mask_path is not None:
        image = np.array(read_image(frame.object_mask_path, f"{frame.where}, object mask").convert("L"))
        return (image > 127).astype(np.int64)
    if frame.instance_path is not None:
        return np.array(read_image(frame.instance_path, f"{frame.where}, instances")).astype(np.int64)
    return None


def targets(truths: Mapping[str, np.ndarray], train: Sequence[NamedView]) -> list[int]:
    """The largest objects that some training view shows well, by id."""
    areas: dict[int, float] = {}
    for view in train:
        ids, counts = np.unique(truths[view.name], return_counts=True)
        for number, count in zip(ids.tolist(), counts.tolist(), strict=True):
            share = count / truths[view.name].size
            if number != 0 and AREA[0] <= share <= AREA[1]:
                areas[number] = areas.get(number, 0.0) + share
    return sorted(sorted(areas, key=lambda number: -areas[number])[:MAX_TARGETS])


def choose_view(
    train: Sequence[NamedView], truths: Mapping[str, np.ndarray], target: int, seed: int
) -> NamedView | None:
    """A training view that shows an object well, by seed."""
    good = [view for view in train if AREA[0] <= (truths[view.name] == target).mean() <= AREA[1]]
    return good[int(np.random.default_rng(seed).integers(len(good)))] if good else None
