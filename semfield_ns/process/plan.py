"""The pieces of work between a video and a scene.

A step reads only what earlier ones wrote, so each can be repeated, or replaced by files of the same form. They come in
an order in which what users change most often, the labels, is late.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from semfield_ns import io
from semfield_ns.errors import SemfieldError
from semfield_ns.io import capital, read_image, read_json, write_json, write_npy, write_png
from semfield_ns.process import depth as depths
from semfield_ns.process import motion, movers
from semfield_ns.process.assembly import write_scene
from semfield_ns.process.diagnosis import LEAST_PARALLAX, contradicted, diagnose, gather, registered
from semfield_ns.process.flow import FlowWindow, flow_file, flow_tool, read_frame, write_flows
from semfield_ns.process.followed import follow_labels
from semfield_ns.process.frames import Report, frame_name, open_source, write_frames
from semfield_ns.process.geometry import Fit, View, far_away, fit_depth, relative_pose, sampson_distance
from semfield_ns.process.given_poses import import_poses
from semfield_ns.process.labels import import_labels
from semfield_ns.process.labels.imported import Imported
from semfield_ns.process.labels.template import write_template
from semfield_ns.process.models import ModelCard
from semfield_ns.process.registration import Registration, match_images
from semfield_ns.process.structure import TooFewRegistered, leave_out, refine, register
from semfield_ns.process.turning import solve
from semfield_ns.process.workspace import Workspace, read_mask
from semfield_ns.scenes.flow import Mask, read_flow

_OFFSETS = (-4, -2, -1, 1, 2, 4)  # frames whose flow a pixel's depth and motion are measured from
_OFFSETS_OF_TURNS = (-8, -4, -2, -1, 1, 2, 4, 8)  # the same of a camera in one place, where slow motion adds up


class Work(Workspace):
    """The steps of one run as methods; each reports the share that is done."""

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

    def rough_motion(self, report: Report) -> None:
        """Whether the camera goes anywhere.

        And then what moves, as far as two frames tell, to be kept out of the registration.
        """
        self.begin(self.rough_mask_file(0).parent)
        settings, count = self.settings, len(self.picked.frames)
        matches = gather(self.images, self.flow, count)
        turning = solve(matches, count, self.picked.size, settings.focal)
        found = diagnose(matches, turning)
        registered(turning, found, given=settings.focal is not None).save(self.turning_file)
        for number in range(count) if found.camera_motion == "moving" else ():
            others = [other for other in (number - 1, number + 1) if 0 <= other < count]
            evidence = [motion.unexplained(*read_flow(flow_file(self.flow, number, other))) for other in others]
            mask = motion.to_quick_mask(motion.smoothed(motion.joined(evidence)), read_frame(self.images, number))
            # Where most of the picture "moves" the camera's motion was misjudged: RANSAC copes better without a mask.
            mask &= mask.mean() < 0.6
            write_png(self.rough_mask_file(number), mask.astype(np.uint8) * 255)
            report((number + 1) / count)
        write_json(self.record("rough"), found.to_json())

    def find_poses(self, report: Report) -> None:
        """Register the frames, or take the poses that are given."""
        self.begin(self.refined_file)
        settings = self.settings
        if settings.poses is not None:
            total = read_json(self.record("frames"))["source"]["count"] or 0
            found = import_poses(settings.poses, self.names, self.picked.size, total, self.images)
        elif settings.static:
            found = register(self.images, self._image_names(), None, self.structure, settings.rig, settings.threads)
        else:
            found = self._path_or_turns()
        found.save(self.registration_file)

    def _path_or_turns(self) -> Registration:
        """The path of the camera; where there is none, or none can be found, its turns."""
        settings, turns = self.settings, Registration.load(self.turning_file)
        if read_json(self.record("rough"))["camera_motion"] != "moving":
            return turns
        masks = [read_mask(self.rough_mask_file(n)) for n in range(len(self.picked.frames))]
        names, count = self._image_names(), len(self.picked.frames)
        try:
            found = register(self.images, names, masks, self.structure, settings.rig, settings.threads)
            doubted = contradicted(found, gather(self.images, self.flow, count))
            if doubted:
                found = leave_out(doubted, names, self.structure, settings.rig, found)
        except TooFewRegistered as error:
            return replace(turns, card=replace(turns.card, note=str(error)))
        parallax = found.figures["median_parallax_deg"]
        if parallax >= LEAST_PARALLAX:
            return found
        why = f"The path that was found shows hardly any parallax ({parallax:.2f}°), which is no more than noise."
        return replace(turns, card=replace(turns.card, note=why))

    def _image_names(self) -> list[str]:
        return [f"{frame_name(n)}.png" for n in range(len(self.picked.frames))]

    def find_motion(self, report: Report) -> None:
        """What moves, told by the whole video; or the masks that are given."""
        self.begin(self.motion_file(0).parent, self.refined_file)
        self._write_motion(report)

    def find_motion_again(self, report: Report) -> None:
        """With the refined poses of a path: the first ones may be those of something that moves."""
        self.begin(self.record("again"))
        repeated = self.settings.masks is None and not self.registration.one_place
        if repeated:
            self._write_motion(report)
        write_json(self.record("again"), {"repeated": repeated})

    def _write_motion(self, report: Report) -> None:
        self._bridge_gaps()
        if self.settings.masks is not None:
            masks, record = self._given_masks(self.settings.masks), {"told": True}
        else:
            masks, record = self._moving(report)
        for number, mask in masks:
            write_png(self.motion_file(number), mask.astype(np.uint8) * 255)
        write_json(self.record("motion"), {"frames": self.kept} | record)

    def _moving(self, report: Report) -> tuple[Iterator[tuple[int, Mask]], dict[str, Any]]:
        """Masks of the frames, none of anything where it cannot be told; and how sure that is."""
        kept, evidence, doubted = self.kept, [], []
        for number, views, fit in self._fits():
            each, weight = motion.not_static(fit, views, motion.texture(read_frame(self.images, number)))
            evidence.append(movers.reduced(motion.smoothed(each, weight)))
            doubted.append(movers.reduced(motion.smoothed(motion.doubted(each, views), weight)))
            report(0.5 * len(evidence) / len(kept))
        ahead, back = (
            [movers.reduced_flow(*read_flow(flow_file(self.flow, *pair))) for pair in pairs]
            for pairs in (list(pairwise(kept)), [(j, i) for i, j in pairwise(kept)])
        )
        features = self._features()
        stands = self.registration.figures.get("camera_motion") != "turning"
        told = movers.tell(evidence, ahead, back, features, self.registration.one_place)
        if not told.believed(stands):
            told = movers.tell(doubted, ahead, back, features, self.registration.one_place)
        believed = told.believed(stands)

        def masks() -> Iterator[tuple[int, Mask]]:
            for done, (number, each) in enumerate(zip(kept, told.evidence, strict=True)):
                rgb = read_frame(self.images, number)
                whole = cv2.resize(each, self.picked.size, interpolation=cv2.INTER_LINEAR)
                yield number, motion.to_mask(whole, rgb) & believed
                report(0.5 + 0.5 * (done + 1) / len(kept))

        record = {"told": believed, "share": told.share}
        return masks(), record if features is None else record | {"agreement": told.agreement}

    def _features(self) -> movers.Grid | None:
        """What the frames look like, unless weights are not wanted, or not at hand."""
        choice, names = self.settings.models, self._image_names()
        if choice == "classical":
            return None
        try:
            return movers.image_features([self.images / names[number] for number in self.kept])
        except SemfieldError:
            if choice == "learned":
                raise
            return None

    def _given_masks(self, folder: Path) -> Iterator[tuple[int, Mask]]:
        images = match_images(sorted(folder.rglob("*.png")), self.names, str(folder))
        for number in self.kept:
            if number not in images:
                raise SemfieldError(f"{capital(str(folder))} has no mask {frame_name(number)}.png for a picked frame.")
            values = io.read_mask(images[number], "motion mask").astype(np.uint8)
            yield number, np.asarray(cv2.resize(values, self.picked.size, interpolation=cv2.INTER_NEAREST) > 0)

    def _bridge_gaps(self) -> None:
        """Flow across frames that have no pose, which the scene leaves out."""
        pairs = [(i, j) for i, j in pairwise(self.kept) if not flow_file(self.flow, i, j).is_file()]
        if pairs:
            write_flows(flow_tool(self.settings.models, device=self.settings.device), self.images, self.flow, pairs)

    def refine_poses(self, report: Report) -> None:
        """The poses again, without what is now known to move, and with corners followed through the video."""
        self.begin(self.refined_file)
        if self.registration.one_place:
            self.registration.save(self.refined_file)
            return
        moving = {number: read_mask(self.motion_file(number)) for number in self.kept}
        before = self.registration.figures
        found = refine(
            self.images, self._image_names(), moving, self.structure, self.settings.rig, before["settings"], report
        )
        kept = {name: before[name] for name in ("contradicted",) if name in before}
        replace(found, figures=found.figures | kept).save(self.refined_file)

    def find_depth(self, report: Report) -> None:
        """Depth of each posed frame."""
        self.begin(self.root / "depth")
        if self.registration.one_place:
            unknown = ModelCard("depth", "unknown: the pictures are all of one place", "1", "Apache-2.0")
            write_json(self.record("depth"), {"card": unknown.to_json(), "coverage": 0.0})
            return
        settings = self.settings
        tool = depths.depth_tool(settings.models, settings.depth_model, settings.device, photos=settings.static)
        errors, coverage = [], []
        for done, (number, depth) in enumerate(self._depth_maps(tool)):
            write_npy(self.depth_file(number), depth.astype(np.float32))
            errors.append(depths.relative_error(depth, *self.registration.depths(number)))
            coverage.append(float((depth > 0).mean()))
            report((done + 1) / len(self.kept))
        record = {
            "card": tool.card.to_json(),
            "coverage": float(np.mean(coverage)),
            "relative_error_at_points": depths.reduced(errors),
        }
        write_json(self.record("depth"), record)

    def _depth_maps(self, tool: depths.DepthTool) -> Iterator[tuple[int, np.ndarray]]:
        registration = self.registration
        if tool.predict is not None and len(registration.points):
            for number in self.kept:
                predicted = tool.predict(read_frame(self.images, number))
                yield number, depths.fit_to_points(predicted, *registration.depths(number), tool.metric)
        elif self.settings.static:
            for number in self.kept:
                camera = registration.cameras[number]
                yield number, depths.from_points(*registration.depths(number), camera.height, camera.width)
        else:
            for number, _, fit in self._fits():
                strength = motion.strongest(motion.texture(read_frame(self.images, number)))
                moving = read_mask(self.motion_file(number))
                yield number, depths.triangulated(fit, moving, strength / (strength + 4.0))

    def _fits(self) -> Iterator[tuple[int, list[View], Fit]]:
        """Each posed frame with its views of the frames around it and the depth that explains them."""
        registration, kept = self.registration, self.kept
        window = FlowWindow(self.images, self.flow)
        offsets = _OFFSETS_OF_TURNS if registration.one_place else _OFFSETS
        for place, number in enumerate(kept):
            window.forget(kept[max(0, place + min(offsets))])
            views = []
            for offset in offsets:
                if 0 <= place + offset < len(kept):
                    other = kept[place + offset]
                    way = kept[place : place + offset + 1] if offset > 0 else kept[place + offset : place + 1][::-1]
                    flow, valid = window.along(way) if registration.one_place else window.between(number, other)
                    turn = relative_pose(registration.poses[number], registration.poses[other])
                    views.append(View(flow, valid, turn, registration.cameras[other]))
            fit = far_away if registration.one_place else fit_depth
            yield number, views, fit(registration.cameras[number], views)

    def labels(self, report: Report) -> None:
        """Labels of the frames, if any are given, and what is needed to make some."""
        self.begin(self.root / "labels")
        write_template(self.root / "annotate", self.images, len(self.picked.frames))
        record: dict[str, Any] = {"labelled": []}
        if self.settings.labels is not None:
            found: Imported = import_labels(self.settings.labels, self.names, self.picked.size, self.images, self.flow)
            if self.settings.follow_labels:
                files = [self.images / name for name in self._image_names()]
                found = follow_labels(found, files, lambda share: report(0.9 * share))
            for done, (number, ids) in enumerate(sorted(found.labels.items())):
                values = np.where(ids < 0, found.label_map.ignore_index, ids)
                write_png(self.label_file(number), values.astype(np.uint8 if values.max() < 256 else np.uint16))
                report(0.9 + 0.1 * (done + 1) / len(found.labels))
            record = {
                "labelled": sorted(found.labels),
                "semantics": found.label_map.to_transforms(),
                "card": ModelCard("labels", found.origin, "given", "that of its maker").to_json(),
                "carried": found.carried,
            }
        write_json(self.record("labels"), record)

    def complete_masks(self, report: Report) -> None:
        """The motion masks of the scene, with the whole things that labels and learned models know."""
        from semfield_ns.process.segments import sharpen

        self.begin(self.root / "masks")
        settings, labels = self.settings, read_json(self.record("labels"))
        named_movers = [entry["id"] for entry in labels.get("semantics", {}).get("classes", []) if entry["dynamic"]]
        masks = {number: read_mask(self.motion_file(number)) for number in self.kept}
        labelled = [number for number in labels["labelled"] if number in masks]
        for number in labelled:
            ids = np.array(read_image(self.label_file(number)))
            named = np.isin(ids, named_movers)
            still = ~named & (ids != labels["semantics"]["ignore_index"])
            masks[number] = motion.completed(masks[number], named) & ~still
        if settings.masks is not None:
            card = ModelCard("motion masks", f"imported from {settings.masks.name}", "given", "that of its maker")
        elif not read_json(self.record("motion"))["told"]:
            card = ModelCard("motion masks", "none: what moves cannot be told", "1", "Apache-2.0")
            masks = {}
        else:
            sharp = sharpen(settings.models, settings.sam_model, self.images, masks, labelled, settings.device)
            masks, card = sharp.masks, sharp.card
            if "agreement" in read_json(self.record("motion")):
                card = replace(card, name=f"{card.name}, image features of lite")
        for done, (number, mask) in enumerate(masks.items()):
            write_png(self.mask_file(number), mask.astype(np.uint8) * 255)
            report((done + 1) / len(masks))
        errors = [] if self.registration.one_place else [self._epipolar_errors(n, mask) for n, mask in masks.items()]
        together = np.concatenate([np.zeros(0), *errors])
        record = {
            "card": card.to_json(),
            "epipolar_error_px": float(np.median(together)) if len(together) else None,
            "epipolar_error_90_px": float(np.percentile(together, 90)) if len(together) else None,
            "moving_share": float(np.mean([mask.mean() for mask in masks.values()])) if masks else None,
        }
        write_json(self.record("masks"), record)

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

    def write_scene(self, report: Report) -> None:
        """transforms.json, last."""
        write_scene(self)

    def write_report(self, report: Report) -> None:
        """The page that shows what came out."""
        from semfield_ns.process.report import write_report

        write_report(self)
