"""A trained run against the truth and against what one would do without it: `semfield evaluate`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.evaluation.protocol import FRAMES, SCHEDULES, Protocol
from semfield_ns.evaluation.suggestion import suggest, uncertainty
from semfield_ns.labelling.baselines import chained_flow, nearest_labelled
from semfield_ns.labelling.classifier import linear_head
from semfield_ns.metrics.confusion import ConfusionMatrix, image_miou
from semfield_ns.metrics.images import end_point_error, image_quality
from semfield_ns.scene_model import MovingSceneModel, SceneModel, require_moving


@dataclass(frozen=True)
class Row:
    """Figures of one method over all evaluated frames; NaN where there is nothing to measure."""

    method: str
    miou: float
    """of the counts of all frames"""
    miou_image: float
    """mean of the frames' own"""
    miou_moving: float
    """mean IoU of the classes that may move"""
    miou_moving_pixels: float
    """of the pixels that motion masks call moving, over the classes that are there: one that is only predicted cannot
    be hit"""
    accuracy: float
    psnr: float = float("nan")
    """mean of the frames', dB"""
    ssim: float = float("nan")
    lpips: float = float("nan")
    """where its weights are at hand"""
    flow_error: float = float("nan")
    """mean end-point error, px, of the optical flow that scene flow and camera induce, against the given one"""


@dataclass(frozen=True)
class Truth:
    """What is known of the evaluated frames."""

    labels: dict[int, Int[np.ndarray, "H W"]]
    """frame -> class ids, negative where there is no label"""
    moving: dict[int, Bool[np.ndarray, "H W"]]
    """frame -> motion mask, where there is one"""
    moving_classes: Bool[np.ndarray, "C"]


def score(
    method: str, predictions: dict[int, Int[np.ndarray, "H W"]], truth: Truth, images: Sequence[dict[str, float]] = ()
) -> Row:
    """Compares label images with the truth.

    Args:
        method: name of the row.
        predictions: frame -> class ids; a negative one predicts nothing, and counts as the first class since it has to
            count.
        truth: of the same frames.
        images: figures of each frame's image, named as in `Row`; a frame may lack some.
    """
    count = len(truth.moving_classes)
    matrix, moving, per_image = ConfusionMatrix(count), ConfusionMatrix(count), []
    for frame, labels in truth.labels.items():
        predicted = np.maximum(predictions[frame], 0)
        matrix.update(predicted, labels)
        per_image.append(image_miou(predicted, labels, count))
        if frame in truth.moving:
            moving.update(predicted, np.where(truth.moving[frame], labels, -1))
    classes = matrix.per_class_iou[torch.from_numpy(truth.moving_classes)]
    return Row(
        method,
        matrix.miou,
        float(np.nanmean(per_image)) if per_image else float("nan"),
        float(classes.nanmean()) if len(classes) else float("nan"),
        float(moving.per_class_iou[moving.counts.sum(dim=1) > 0].mean()),
        matrix.accuracy,
        *(
            _mean([image[name] for image in images if name in image])
            for name in ("psnr", "ssim", "lpips", "flow_error")
        ),
    )


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if value == value]
    return float(np.mean(known)) if known else float("nan")


def baselines(dataset: Any, truth: Truth) -> list[Row]:
    """Baselines, as far as the scene has what they need.

    The nearest labelled frame copied, optical flow chained from it, and a linear head on each frame's own features.

    Args:
        dataset: the training frames.
        truth: of frames numbered as in `dataset`.
    """
    labelled = dataset.metadata["labelled"]
    if not labelled:
        return []
    count = len(dataset)
    labels = [dataset.semantics(i)[..., 0].numpy() if i in labelled else None for i in range(count)]
    rows = [score("nearest labelled frame", dict(enumerate(nearest_labelled(labels, labelled, count))), truth)]
    entries = [dataset[i] for i in range(count)]
    if all("flow_forward" in entry and "flow_backward" in entry for entry in entries):
        flows = [[entry[key][..., :2].numpy() for entry in entries] for key in ("flow_forward", "flow_backward")]
        rows.append(score("chained optical flow", dict(enumerate(chained_flow(labels, labelled, *flows))), truth))
    features = dataset.metadata.get("source_features")
    if features is not None:
        given = {i: image for i, image in enumerate(labels) if image is not None}
        found = linear_head(features, given, len(truth.moving_classes))
        rows.append(score("per-frame features, linear head", dict(enumerate(found)), truth))
    return rows


@dataclass(frozen=True)
class Evaluation:
    """What was found; `rows` begins with the run itself."""

    rows: list[Row]
    class_names: list[str]
    frames: list[str]
    per_class_iou: dict[str, float]
    pictures: dict[str, Float[Tensor, "H W 3"]]
    """name -> image, truth, prediction, errors side by side, in [0, 1]"""
    suggested: list[str]
    """frames of the video to label next, the most useful one first"""


@torch.no_grad()
def evaluate_run(config_path: Path, protocol: Protocol = "auto", suggest_frames: int = 0) -> Evaluation:
    """Loads a run and evaluates it.

    On frames of the training video whose labels were hidden, the baselines are evaluated too.

    Args:
        config_path: the run's config.yml. Like every command of Nerfstudio this trusts it: a config.yml can run code.
        protocol: which frames, as the data parser's `eval_frames`, or a protocol of `FRAMES`.
        suggest_frames: how many frames to suggest for labelling.

    Raises:
        SemfieldError: there is no such file, the run's scene has no labels, no evaluated frame has one, or the run's
            label schedule is not one of the protocol.
    """
    from nerfstudio.utils.eval_utils import eval_setup
    from rich.progress import track

    from semfield_ns.rendering.palette import colorize_labels

    if not config_path.is_file():
        raise SemfieldError(f"{config_path} is not a file: give the config.yml of a trained run.")
    if suggest_frames < 0:
        raise SemfieldError(f"The number of frames to suggest must be 0 or more, not {suggest_frames}.")

    def choose(config: Any) -> Any:
        parser = config.pipeline.datamanager.dataparser
        if protocol in SCHEDULES and not parser.labels.startswith(SCHEDULES[protocol]):
            raise SemfieldError(
                f"The protocol {protocol} is for runs with labels {SCHEDULES[protocol]}P%, but this run was "
                f"trained with {parser.labels}: use the protocol unlabelled."
            )
        if protocol == "adaptation" and config.load_checkpoint is None:
            raise SemfieldError(
                "The protocol adaptation is for runs that began with --load-checkpoint, and this one did not: use the "
                "protocol auto."
            )
        parser.eval_frames = FRAMES.get(protocol, "auto")
        return config

    config, pipeline, _, _ = eval_setup(config_path, test_mode="test", update_config_callback=choose)
    model, dataset, training = pipeline.model, pipeline.datamanager.eval_dataset, pipeline.datamanager.train_dataset
    assert dataset is not None and training is not None, "the data manager sets both up"
    if suggest_frames:
        require_moving(model, config.method_name, "frames to label are suggested")
    label_map = dataset.metadata.get("label_map")
    if label_map is None:
        raise SemfieldError(f"The scene of {config_path} has no classes: use ns-eval for its colours.")
    order = {frame.image_path: index for index, frame in enumerate(training.metadata["frames"])}
    paths = [frame.image_path for frame in dataset.metadata["frames"]]
    video = all(path in order for path in paths)
    predictions: dict[int, np.ndarray] = {}
    truth = Truth({}, {}, label_map.dynamic)
    images, pictures = [], {}
    palette = torch.as_tensor(label_map.colors)
    for index in track(range(len(dataset)), description="Evaluating", transient=True):
        item = dataset[index]
        labels = item["semantics"][..., 0]
        if not bool((labels >= 0).any()):
            continue
        frame = order[paths[index]] if video else index
        outputs = {k: v.cpu() for k, v in model.get_outputs_for_camera(dataset.cameras[index : index + 1]).items()}
        predicted = outputs["semantics"][..., 0].long()
        predictions[frame], truth.labels[frame] = predicted.numpy(), labels.numpy()
        if "dynamic_mask" in item:
            truth.moving[frame] = (item["dynamic_mask"][..., 0] > 0.5).numpy()
        color = item["image"][..., :3]
        images.append(image_quality(outputs["rgb"], color))
        if video and isinstance(model, MovingSceneModel):
            images[-1]["flow_error"] = _flow_error(model, dataset.cameras[index : index + 1], training[frame])
        wrong = ((predicted != labels) & (labels >= 0))[..., None].expand(-1, -1, 3).float()
        shown = [color, outputs["rgb"], colorize_labels(labels, palette), colorize_labels(predicted, palette), wrong]
        pictures[paths[index].stem] = torch.cat(shown, dim=1)
    if not truth.labels:
        raise SemfieldError(f"No frame that {protocol!r} evaluates has a label: choose another protocol.")
    rows = [score("this run", predictions, truth, images)]
    matrix = ConfusionMatrix(len(label_map))
    for frame, labels in truth.labels.items():
        matrix.update(predictions[frame], labels)
    # The baselines are there where this makes sense: on frames of the video that have no label of their own.
    if video and not set(truth.labels) & set(training.metadata["labelled"]):
        rows += baselines(training, truth)
    ious = {n: float(v) for n, v in zip(label_map.names, matrix.per_class_iou, strict=True) if v == v}
    suggested = _suggested(model, training, suggest_frames) if suggest_frames else []
    return Evaluation(rows, list(label_map.names), list(pictures), ious, pictures, suggested)


def _suggested(model: SceneModel, training: InputDataset, count: int) -> list[str]:
    """Names of the training frames to label next; the video is rendered at a quarter of its size."""
    frames, labelled = training.metadata["frames"], set(training.metadata["labelled"])
    cameras = training.cameras
    unsure = {}
    for index in (i for i in range(len(frames)) if i not in labelled):
        camera = cameras[index : index + 1]
        camera.rescale_output_resolution(0.25)
        unsure[index] = uncertainty(model.raw_outputs_for_camera(camera)["logits"])
    return [frames[index].image_path.stem for index in suggest(unsure, count)]


def _flow_error(model: MovingSceneModel, camera: Cameras, given: dict[str, Tensor]) -> float:
    """Mean over both directions, where the given flow is valid and there is a neighbour; else NaN."""
    errors = []
    for step, key in ((1, "flow_forward"), (-1, "flow_backward")):
        flow = model.induced_flow(camera, step)
        if flow is not None and key in given and bool((given[key][..., 2] > 0.5).any()):
            errors.append(end_point_error(flow.cpu(), given[key][..., :2], given[key][..., 2] > 0.5))
    return float(np.mean(errors)) if errors else float("nan")


COLUMNS = {
    "method": "method",
    "miou": "dataset mIoU",
    "miou_image": "per-image mIoU",
    "miou_moving": "moving classes",
    "miou_moving_pixels": "moving pixels",
    "accuracy": "accuracy",
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "flow_error": "flow error, px",
}


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [f"| {' | '.join(COLUMNS.values())} |", f"|{'---|' * len(COLUMNS)}"]
    for row in rows:
        values = asdict(row)
        cells = [values["method"]] + [
            _cell(values[name], 2 if name in ("psnr", "flow_error") else 3) for name in list(COLUMNS)[1:]
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: float, digits: int) -> str:
    return "-" if value != value else f"{value:.{digits}f}"
