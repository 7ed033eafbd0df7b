"""The pieces of work between a video and a scene, what each leaves behind, and how they fit together.

Everything of a run lies below one folder: the scene (transforms.json, images, flow, masks, depth, labels), the report,
and `.process` with what one step hands to the next. A step reads only what earlier ones wrote, so each can be repeated,
or replaced by files of the same form.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from semfield_ns.errors import SemfieldError
from semfield_ns.io import capital, read_image, read_json, read_npy, write_json, write_npy, write_png
from semfield_ns.process import depth as depths
from semfield_ns.process import motion
from semfield_ns.process.flow import FlowWindow, flow_file, flow_tool, read_rgb, write_flows
from semfield_ns.process.frames import Picked, frame_name, open_source, write_frames
from semfield_ns.process.geometry import Fit, View, fit_depth, relative_pose, sampson_distance
from semfield_ns.process.labels import Imported, import_labels, write_template
from semfield_ns.process.models import Choice, ModelCard
from semfield_ns.process.poses import FrameNames, Lens, Registration, import_poses, match_name, register
from semfield_ns.scenes.flow import Mask, read_flow

Report = Callable[[float], None]

_OFFSETS = (-4, -2, -1, 1, 2, 4)  # frames whose flow a pixel's depth and motion are measured from
_DIAGNOSED = 12  # pairs of frames that the camera's motion is judged by
_STILL = 0.004  # of the width: less motion over the whole video is a camera that stands
_FLAT = 0.95  # share of still pixels that a homography explains, if the camera only turns
_TURNS = 0.01  # and how far, at most, that homography is from a rotation
_LITTLE_PARALLAX = 1.0  # degrees


@dataclass(frozen=True)
class Settings:
    """What a user may choose; see `semfield process --help`."""

    source: Path
    output_dir: Path
    num_frames: int = 60
    start: float = 0.0
    end: float | None = None
    longest: int = 960
    models: Choice = "auto"
    static: bool = False
    focal: float | None = None
    lens: Lens = "radial"
    poses: Path | None = None
    masks: Path | None = None
    labels: Path | None = None
    depth_model: str = depths.DEPTH_MODEL
    sam_model: str = ""
    threads: int = 1
    device: str = "cpu"


@dataclass(frozen=True)
class Work:
    """The steps of one run as methods; each reports the share that is done."""

    settings: Settings

    # --- places ---

    @property
    def root(self) -> Path:
        return self.settings.output_dir

    @property
    def hidden(self) -> Path:
        return self.root / ".process"

    def record(self, step: str) -> Path:
        """What a step writes last."""
        return self.hidden / f"{step}.json"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def flow(self) -> Path:
        return self.root / "flow"

    @property
    def registration_file(self) -> Path:
        return self.hidden / "poses.npz"

    @property
    def scene_file(self) -> Path:
        return self.root / "transforms.json"

    @property
    def report_file(self) -> Path:
        return self.root / "report" / "index.html"

    def mask_file(self, number: int, rough: bool = False) -> Path:
        folder = self.hidden / "rough_masks" if rough else self.root / "masks"
        return folder / f"{frame_name(number)}.png"

    def depth_file(self, number: int) -> Path:
        return self.root / "depth" / f"{frame_name(number)}.npy"

    def label_file(self, number: int) -> Path:
        return self.root / "labels" / f"{frame_name(number)}.png"

    # --- what earlier steps left ---

    @cached_property
    def picked(self) -> Picked:
        return Picked.from_json(read_json(self.record("frames")))

    @cached_property
    def registration(self) -> Registration:
        return Registration.load(self.registration_file)

    @property
    def names(self) -> list[FrameNames]:
        return [FrameNames(n, frame.index, frame.name) for n, frame in enumerate(self.picked.frames)]

    @cached_property
    def kept(self) -> list[int]:
        """Numbers of the frames that have a pose."""
        return sorted(self.registration.poses)

    def mask(self, number: int, rough: bool = False) -> Mask:
        return np.array(read_image(self.mask_file(number, rough))) > 0

    # --- steps ---

    def claim(self) -> None:
        """Take the output folder, or refuse one that holds something else."""
        if self.root.is_dir() and any(self.root.iterdir()) and not self.hidden.is_dir():
            raise SemfieldError(f"{self.root} is not empty and was not made by this command: choose another folder.")

    def begin(self, *folders: Path) -> None:
        """From now until the last step the scene is not whole; what an earlier run left in folders goes."""
        self.scene_file.unlink(missing_ok=True)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    def frames(self, report: Report) -> None:
        """Pick frames and write them."""
        settings = self.settings
        self.begin(self.images)
        source = open_source(settings.source)
        picked = write_frames(
            source, self.images, settings.num_frames, settings.longest, settings.start, settings.end, report
        )
        about = {"count": source.count, "width": source.width, "height": source.height, "rotation": source.rotation}
        write_json(self.record("frames"), picked.to_json() | {"source": about})

    def flows(self, report: Report) -> None:
        """Optical flow between consecutive frames."""
        self.begin(self.flow)
        tool = flow_tool(self.settings.models, device=self.settings.device)
        pairs = list(pairwise(range(len(self.picked.frames))))
        agreeing = write_flows(tool, self.images, self.flow, pairs, report)
        write_json(self.record("flow"), {"card": tool.card.to_json(), "agreeing": agreeing})

    def labels(self, report: Report) -> None:
        """Labels of the frames, if any are given, and what is needed to make some."""
        self.begin(self.root / "labels")
        write_template(self.root / "annotate", self.images, len(self.picked.frames))
        record: dict[str, Any] = {"labelled": []}
        if self.settings.labels is not None:
            found: Imported = import_labels(self.settings.labels, self.names, self.picked.size, self.images, self.flow)
            for done, (number, ids) in enumerate(sorted(found.labels.items())):
                values = np.where(ids < 0, found.label_map.ignore_index, ids).astype(np.uint8)
                write_png(self.label_file(number), values)
                report((done + 1) / len(found.labels))
            record = {
                "labelled": sorted(found.labels),
                "semantics": found.label_map.to_transforms(),
                "card": ModelCard("labels", found.origin, "given", "that of its maker").to_json(),
                "carried": found.carried,
            }
        write_json(self.record("labels"), record)

    def rough_motion(self, report: Report) -> None:
        """What moves, as far as two frames tell, to be kept out of the registration; and how the camera moves."""
        self.begin(self.hidden / "rough_masks")
        count = len(self.picked.frames)
        evidence: dict[int, list[np.ndarray]] = {number: [] for number in range(count)}
        for number in range(count):
            for other in (number - 1, number + 1):
                if 0 <= other < count:
                    evidence[number].append(motion.unexplained(*read_flow(flow_file(self.flow, number, other))))
            rgb = read_rgb(self.images, number)
            mask = motion.to_quick_mask(motion.smoothed(motion.joined(evidence.pop(number))), rgb)
            mask |= self._labelled_dynamic(number)
            # Where most of the picture "moves" the camera's motion was misjudged: RANSAC copes better without a mask.
            mask &= mask.mean() < 0.6
            write_png(self.mask_file(number, rough=True), mask.astype(np.uint8) * 255)
            report((number + 1) / count)
        write_json(self.record("rough"), self._diagnose())

    def _labelled_dynamic(self, number: int) -> Mask:
        """Pixels whose given label is of a class that moves."""
        record = read_json(self.record("labels"))
        if number not in record["labelled"]:
            return np.zeros(self.picked.size[::-1], dtype=bool)
        moving = [entry["id"] for entry in record["semantics"]["classes"] if entry["dynamic"]]
        return np.isin(np.array(read_image(self.label_file(number))), moving)

    def _diagnose(self) -> dict[str, Any]:
        """Whether the camera stands still or only turns, from flow over as many frames as can be followed."""
        count, width, height = len(self.picked.frames), *self.picked.size
        step = max(1, count // _DIAGNOSED)
        window = FlowWindow(self.images, self.flow)
        shifts, turns, flats = [], [], []
        for i in range(0, count - step, step):
            window.forget(i)
            flow, valid = window.between(i, i + step)
            still = valid & ~self.mask(i, rough=True)
            _, homography = motion.fit_camera_motion(flow, still)
            if homography is None:
                continue
            # Not the median: a camera that turns about a thing keeps most of it in place.
            shifts.append(float(np.percentile(np.linalg.norm(flow[still], axis=-1), 95)) / width)
            flats.append(float((motion.homography_distance(homography, flow) < 1.5)[still].mean()))
            turns.append(motion.looks_like_rotation(homography, width, height))
        middle = lambda values: float(np.median(values)) if values else 0.0  # noqa: E731
        return {"shift": middle(shifts), "flat_share": middle(flats), "rotation_misfit": middle(turns), "step": step}

    def diagnosis(self) -> str:
        """A sentence on why the camera's motion shows no depth; empty if it may.

        Structure from motion cannot be trusted to say so: it explains a camera that only turns by a bent lens and a
        path that never was.
        """
        seen = read_json(self.record("rough"))
        if seen["shift"] < _STILL:
            return "the camera hardly moves, and without parallax there is neither depth nor a path to be found."
        if seen["flat_share"] > _FLAT and seen["rotation_misfit"] < _TURNS:
            return (
                "the camera only turns on the spot, and without parallax there is neither depth nor a path to be found."
            )
        return ""

    def find_poses(self, report: Report) -> None:
        """Register the frames, or take the poses that are given."""
        self.begin()
        settings, names = self.settings, [f"{frame_name(n)}.png" for n in range(len(self.picked.frames))]
        if settings.poses is not None:
            total = read_json(self.record("frames"))["source"]["count"] or 0
            found = import_poses(settings.poses, self.names, self.picked.size, total)
        else:
            count = len(names)
            masks = None if settings.static else [self.mask(n, rough=True) for n in range(count)]
            if not settings.static and (diagnosis := self.diagnosis()):
                raise SemfieldError(
                    f"{settings.source}: {diagnosis} Walk sideways or around the scene while filming, or import poses "
                    "(--poses)."
                )
            found = register(
                self.images,
                names,
                masks,
                self.hidden / "colmap",
                settings.focal,
                settings.lens,
                settings.threads,
            )
        found.save(self.registration_file)
        self.__dict__.pop("registration", None)

    def refine_masks(self, report: Report) -> None:
        """What moves, seen over several posed frames; and how well poses and flow agree."""
        from semfield_ns.process.segments import sharpen

        self.begin(self.root / "masks")
        self._bridge_gaps()
        masks: dict[int, Mask] = {}
        errors = []
        for done, (number, views, fit) in enumerate(self._fits()):
            rgb = read_rgb(self.images, number)
            if self.settings.masks is None:
                evidence, weight = motion.not_static(fit, views, motion.texture(rgb))
                masks[number] = motion.to_mask(motion.smoothed(evidence, weight), rgb)
            else:
                masks[number] = self._given_mask(number)
            masks[number] |= self._labelled_dynamic(number)
            errors.append(self._epipolar_errors(number, masks[number]))
            report(0.8 * (done + 1) / len(self.kept))
        if self.settings.masks is None:
            sharp = sharpen(self.settings.models, self.settings.sam_model, self.images, masks, self.settings.device)
            masks, card = sharp.masks, sharp.card
        else:
            card = ModelCard("motion masks", f"imported from {self.settings.masks.name}", "given", "that of its maker")
        for number, mask in masks.items():
            write_png(self.mask_file(number), mask.astype(np.uint8) * 255)
        together = np.concatenate(errors)
        record = {
            "card": card.to_json(),
            "epipolar_error_px": float(np.median(together)) if len(together) else None,
            "epipolar_error_90_px": float(np.percentile(together, 90)) if len(together) else None,
            "moving_share": float(np.mean([mask.mean() for mask in masks.values()])),
        }
        write_json(self.record("masks"), record)

    def _given_mask(self, number: int) -> Mask:
        folder = self.settings.masks
        assert folder is not None
        found = [path for path in sorted(folder.glob("*.png")) if match_name(path.name, self.names) == number]
        if not found:
            raise SemfieldError(f"{capital(str(folder))} has no mask {frame_name(number)}.png for a picked frame.")
        values = np.array(read_image(found[0], "motion mask").convert("L"))
        return np.asarray(cv2.resize(values, self.picked.size, interpolation=cv2.INTER_NEAREST) > 0)

    def _bridge_gaps(self) -> None:
        """Flow across frames that have no pose, which the scene leaves out."""
        pairs = [(i, j) for i, j in pairwise(self.kept) if not flow_file(self.flow, i, j).is_file()]
        if pairs:
            write_flows(flow_tool(self.settings.models, device=self.settings.device), self.images, self.flow, pairs)

    def _fits(self) -> Iterator[tuple[int, list[View], Fit]]:
        """Each posed frame with its views of the frames around it and the depth that explains them."""
        registration, kept = self.registration, self.kept
        window = FlowWindow(self.images, self.flow)
        for place, number in enumerate(kept):
            window.forget(kept[max(0, place + min(_OFFSETS))])
            views = []
            for offset in _OFFSETS:
                if 0 <= place + offset < len(kept):
                    other = kept[place + offset]
                    flow, valid = window.between(number, other)
                    turn = relative_pose(registration.poses[number], registration.poses[other])
                    views.append(View(flow, valid, turn, registration.cameras[other]))
            yield number, views, fit_depth(registration.cameras[number], views)

    def _epipolar_errors(self, number: int, mask: Mask, every: int = 7) -> np.ndarray:
        """Px between the flow of static pixels to the next frame and their epipolar lines."""
        place = self.kept.index(number)
        if place + 1 == len(self.kept):
            return np.zeros(0)
        other = self.kept[place + 1]
        flow, valid = read_flow(flow_file(self.flow, number, other))
        y, x = np.divmod(np.flatnonzero(valid & ~mask)[::every], valid.shape[1])
        start = np.stack([x, y], axis=-1) + 0.5
        a = self.registration.cameras[number].normalise(start)
        b = self.registration.cameras[other].normalise(start + flow[y, x])
        turn = relative_pose(self.registration.poses[number], self.registration.poses[other])
        return sampson_distance(a, b, turn) * self.registration.cameras[number].focal

    def find_depth(self, report: Report) -> None:
        """Depth of each posed frame."""
        self.begin(self.root / "depth")
        tool = depths.depth_tool(self.settings.models, self.settings.depth_model, self.settings.device)
        registration, errors, coverage = self.registration, [], []
        card = tool.card
        for done, (number, depth) in enumerate(self._depth_maps(tool)):
            write_npy(self.depth_file(number), depth.astype(np.float32))
            errors.append(depths.relative_error(depth, *registration.depths(number)))
            coverage.append(float((depth > 0).mean()))
            report((done + 1) / len(self.kept))
        record = {
            "card": card.to_json(),
            "coverage": float(np.mean(coverage)),
            "relative_error_at_points": depths.reduced(errors),
        }
        write_json(self.record("depth"), record)

    def _depth_maps(self, tool: depths.DepthTool) -> Iterator[tuple[int, np.ndarray]]:
        registration = self.registration
        if tool.predict is not None and len(registration.points):
            for number in self.kept:
                pixels, sparse = registration.depths(number)
                predicted = tool.predict(read_rgb(self.images, number))
                yield number, depths.fit_to_points(predicted, pixels, sparse, tool.metric)
        elif self.settings.static:
            for number in self.kept:
                camera = registration.cameras[number]
                yield number, depths.from_points(*registration.depths(number), camera.height, camera.width)
        else:
            for number, _, fit in self._fits():
                strength = motion.strongest(motion.texture(read_rgb(self.images, number)))
                trust = strength / (strength + 4.0)
                yield number, depths.triangulated(fit, self.mask(number), trust)

    def write_scene(self, report: Report) -> None:
        """transforms.json, last, so that it is only there when everything it names is."""
        from semfield_ns.scenes.formats.transforms import read_transforms, write_transforms
        from semfield_ns.scenes.labels import LabelMap
        from semfield_ns.scenes.scene import Frame, assemble_scene

        registration, kept, static = self.registration, self.kept, self.settings.static
        labels = read_json(self.record("labels"))
        labelled = set(labels["labelled"]) & set(kept)
        covered = [number for number in kept if (read_npy(self.depth_file(number)) > 0).any()]
        frames = []
        for place, number in enumerate(kept):
            camera = registration.cameras[number]
            before, after = (kept[p] if 0 <= p < len(kept) else None for p in (place - 1, place + 1))
            frame = Frame(
                image_path=self.images / f"{frame_name(number)}.png",
                c2w=registration.poses[number],
                fx=camera.fx,
                fy=camera.fy,
                cx=camera.cx,
                cy=camera.cy,
                width=camera.width,
                height=camera.height,
                distortion=camera.distortion,
                time=0.0 if static else self.picked.frames[number].time,
                # Photos of a static scene are all of one moment: each is a camera of its own.
                camera_id=str(place) if static else "0",
                semantic_path=self.label_file(number) if number in labelled else None,
                depth_path=self.depth_file(number) if number in covered else None,
            )
            if not static:
                frame = replace(
                    frame,
                    dynamic_mask_path=self.mask_file(number),
                    flow_bwd_path=None if before is None else flow_file(self.flow, number, before),
                    flow_fwd_path=None if after is None else flow_file(self.flow, number, after),
                )
            frames.append(frame)
        scene = assemble_scene(
            self.root,
            frames,
            label_map=LabelMap.from_transforms(labels["semantics"]) if labelled else None,
            depth_kind="metric" if covered else None,
            points=registration.points if len(registration.points) else None,
        )
        write_transforms(scene, self.root)
        read_transforms(self.scene_file)

    def write_report(self, report: Report) -> None:
        """The page that shows what came out."""
        from semfield_ns.process.report import write_report

        write_report(self)

    def warnings(self) -> list[str]:
        """What a user should know about the result, worst first."""
        figures, count = self.registration.figures, len(self.picked.frames)
        found = []
        if len(self.kept) < count:
            found.append(f"{count - len(self.kept)} of {count} frames could not be registered and were left out.")
        parallax = figures.get("median_parallax_deg")
        if parallax is not None and parallax < _LITTLE_PARALLAX:
            found.append(
                f"Little parallax (median {parallax:.2f}°): depth and camera path are uncertain. Walk further."
            )
        if (figures.get("reprojection_error_px") or 0) > 1.2:
            found.append(
                f"The points miss their pixels by {figures['reprojection_error_px']:.2f} px on average: moving things "
                "were taken for static ones, the camera zoomed, or its rows are exposed one after the other (rolling "
                "shutter)."
            )
        if not self.settings.static:
            masks = read_json(self.record("masks"))
            if (masks["epipolar_error_px"] or 0) > 0.6:
                found.append(f"Flow misses the epipolar lines by {masks['epipolar_error_px']:.2f} px in the median.")
            if masks["moving_share"] > 0.5:
                found.append(
                    f"{masks['moving_share']:.0%} of the picture moves: little is left to register the camera."
                )
        for step in ("flow", "masks", "depth"):
            if self.record(step).is_file():
                note = read_json(self.record(step))["card"]["note"]
                found += [note] if note and self.settings.models != "classical" else []
        return found + self.picked.warnings

    def cards(self) -> list[ModelCard]:
        """What made each part of the scene."""
        cards = [self.registration.card]
        for step in ("flow", "masks", "depth", "labels"):
            record = read_json(self.record(step)) if self.record(step).is_file() else {}
            if "card" in record:
                cards.append(ModelCard(**record["card"]))
        return cards

    def figures(self) -> dict[str, Any]:
        """All measured quality, by name."""
        figures = dict(self.registration.figures)
        for step, keys in _FIGURES.items():
            if self.record(step).is_file():
                record = read_json(self.record(step))
                figures |= {name: record[key] for key, name in keys.items() if record.get(key) is not None}
        return figures


_FIGURES = {
    "flow": {"agreeing": "flow_agreeing_share"},
    "masks": {
        "epipolar_error_px": "epipolar_error_px",
        "epipolar_error_90_px": "epipolar_error_90_px",
        "moving_share": "moving_share",
    },
    "depth": {"coverage": "depth_known_share", "relative_error_at_points": "depth_relative_error_at_points"},
    "rough": {"shift": "shift_of_width"},
}
