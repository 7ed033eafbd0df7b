"""`semfield process VIDEO --output-dir SCENE`: a scene to train on, made of a video or of photos."""

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from semfield_ns.cli.hints import typed
from semfield_ns.cli.shards import is_list, read_list, run_share, share_of
from semfield_ns.cli.steps import Step, StepRunner
from semfield_ns.errors import SemfieldError

if TYPE_CHECKING:
    from semfield_ns.process.plan import Work
    from semfield_ns.process.workspace import Settings

_HASHED = 1 << 20  # bytes at either end of a file that tell it from another one


def process(
    source: Annotated[Path, tyro.conf.Positional],
    output_dir: Path,
    num_frames: int = 60,
    start: float = 0.0,
    end: float | None = None,
    max_size: int = 960,
    models: Literal["auto", "classical", "learned"] = "auto",
    static: bool = False,
    labels: Path | None = None,
    follow_labels: bool = False,
    poses: Path | None = None,
    masks: Path | None = None,
    frame_names: Literal["auto", "picked", "picked-from-1", "original", "original-from-0", "original-from-1"] = "auto",
    focal: float | None = None,
    lens: Literal["radial", "pinhole"] = "radial",
    depth_model: str = "depth-anything/Depth-Anything-V2-Small-hf",
    sam_model: str = "facebook/sam2.1-hiera-tiny",
    threads: int | None = None,
    device: str = "cpu",
    shard: str = "1/1",
) -> None:
    """Make a scene to train on of your video or photos.

    The scene has frames, optical flow, motion masks, camera poses, depth, labels and a report. When the command is
    repeated, after it was stopped or with other options, finished steps are kept.

    Args:
        source: A video file; a folder of images (the frames of a video or, with --static, photos); or the result of
            ns-process-data, with its camera poses. Or a list of such: a .txt file with a path in each line.
        output_dir: Folder of the scene: new, empty, or an earlier result of this command. Of a list, the folder of the
            scenes.
        num_frames: Maximum number of frames to pick.
        start: Where to start, in seconds; for a folder, the number of the image.
        end: Where to stop, in seconds; for a folder, the number of the image.
        max_size: Longer side of the frames in pixels, at most.
        models: learned: RAFT, SAM 2 and Depth Anything, from local weights. classical: methods without weights. auto:
            learned wherever the weights are available.
        static: The images are photos of a scene in which nothing moves: no times, flow or motion masks.
        labels: Labels of some frames: a mask of the first frame, CVAT masks, COCO, Label Studio brush PNGs, SAM 2
            tracks, or clicks.
        follow_labels: Follow the labels to all other frames, as semfield track does; what is not sure stays unlabelled.
        poses: Camera poses from elsewhere: transforms.json, COLMAP, VGGT, MegaSaM or ViPE.
        masks: Folder of motion masks from elsewhere: one PNG for each frame, not 0 where things move.
        frame_names: What names and numbers in files of labels, poses and masks mean, where they fit in two ways: those
            of picked frames (0000.png), or of the original images or frames.
        focal: Focal length in pixels of the written frames, if known.
        lens: radial: estimate the distortion of the lens. pinhole: there is none.
        depth_model: Weights for learned depth: a name in the local cache of transformers, or a folder.
        sam_model: Weights of SAM 2: a name in the local cache of transformers, or a folder.
        threads: Threads for structure from motion. By default, as many as there are processors.
        device: Device for learned models, such as cuda.
        shard: Of a list, the share that this job does: I/N for the I-th of N jobs.
    """
    options = dict(locals())
    from semfield_ns.process.plan import Work
    from semfield_ns.process.workspace import Settings

    if not source.exists():
        raise SemfieldError(f"{source} does not exist: give a video file or a folder of images.")
    if is_list(source):
        inputs = share_of(read_list(source), shard)
        run_share(inputs, lambda name, path: process(**options | {"source": path, "output_dir": output_dir / name}))
        return
    source, poses = with_poses(source, poses)
    if num_frames < 4 or max_size < 64:
        raise SemfieldError("--num-frames must be at least 4 and --max-size at least 64.")
    if focal is not None and not focal > 0:
        raise SemfieldError(f"--focal must be a length in pixels above 0, not {focal:g}.")
    if end is not None and end <= start:
        raise SemfieldError(f"--end {end:g} must be later than --start {start:g}.")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    work = Work(
        Settings(
            source=source,
            output_dir=output_dir,
            num_frames=num_frames,
            start=start,
            end=end,
            longest=max_size,
            models=models,
            static=static,
            focal=focal,
            lens=lens,
            poses=poses,
            masks=masks,
            labels=labels,
            follow_labels=follow_labels,
            frame_names=frame_names,
            depth_model=depth_model,
            sam_model=sam_model,
            threads=threads or cores,
            device=device,
        )
    )
    work.claim()
    StepRunner(work.hidden / "steps").run_all(steps(work))
    print_summary(work)


def with_poses(source: Path, poses: Path | None) -> tuple[Path, Path | None]:
    """The images and poses of what ns-process-data wrote; anything else as it is."""
    if (source / "transforms.json").is_file() and (source / "images").is_dir():
        return source / "images", poses or source / "transforms.json"
    return source, poses


def steps(work: "Work") -> list[Step]:
    """The work, in order."""
    chosen = work.settings
    static = {"static": chosen.static}
    learned = {"models": chosen.models} | static
    picking: dict[str, Any] = {"source": digest(chosen.source), "frames": chosen.num_frames, "size": chosen.longest}
    picking |= {"start": chosen.start, "end": chosen.end}
    followed = {"followed": 1} if chosen.follow_labels and chosen.labels is not None else {}
    found_by = {"focal": chosen.focal, "lens": chosen.lens} | given("poses", chosen.poses, chosen) | static

    def step(name: str, title: str, inputs: dict[str, Any], run: Any, output: Path | None = None) -> Step:
        return Step(name, title, inputs, (output or work.record(name),), run)

    plan = [
        step("frames", f"Picking frames of {chosen.source}", picking, work.frames),
        step("flow", "Optical flow, forward and backward", learned, work.flows),
        step("rough", "How the camera moves", {"focal": chosen.focal, "turns": 1}, work.rough_motion),
        step("poses", "Camera poses", found_by, work.find_poses, work.registration_file),
        step("motion", "Finding what moves", given("masks", chosen.masks, chosen) | learned, work.find_motion),
        step(
            "refined",
            "Camera poses, refined with tracked corners",
            {"corners": 1},
            work.refine_poses,
            work.refined_file,
        ),
        step("again", "Finding what moves, with these poses", learned, work.find_motion_again),
        step("depth", "Depth", {"model": chosen.depth_model} | learned, work.find_depth),
        step("labels", "Labels", given("labels", chosen.labels, chosen) | followed, work.labels),
        step("masks", "Motion masks of whole objects", {"model": chosen.sam_model} | learned, work.complete_masks),
        step("scene", "The scene", {}, work.write_scene, work.scene_file),
        step("report", "The report", {}, work.write_report, work.report_file),
    ]
    left_out = {"flow", "rough", "motion", "refined", "again", "masks"} if chosen.static else set()
    left_out |= {"refined", "again"} if chosen.poses is not None else set()
    return [each for each in plan if each.name not in left_out]


def given(what: str, path: Path | None, chosen: "Settings") -> dict[str, Any]:
    """What a step depends on that reads files of others: what they hold, and what the names in them mean."""
    named = {"names": chosen.frame_names} if path is not None and chosen.frame_names != "auto" else {}
    return {what: digest(path)} | named


def digest(path: Path | None) -> str | None:
    """A name for what a file, or all files of a folder, hold, quick for long videos: sizes, beginnings and ends."""
    if path is None:
        return None
    if not path.exists():
        raise SemfieldError(f"{path} does not exist: give the file or folder that another program wrote.")
    result = hashlib.sha256(path.name.encode())
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        try:
            with file.open("rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                result.update(f"\0{file.relative_to(path)}\0{size}\0".encode())
                for place in {0, max(0, size - _HASHED)}:
                    stream.seek(place)
                    result.update(stream.read(_HASHED))
        except OSError as error:
            raise SemfieldError(f"{file} cannot be read ({error.strerror}).") from error
    return result.hexdigest()[:24]


def print_summary(work: "Work") -> None:
    """Models, figures, warnings, where everything is, and what to type next."""
    from rich.console import Console

    from semfield_ns.process import summary

    console = Console(soft_wrap=True, highlight=False, markup=False)
    for card in summary.cards(work):
        console.print(f"  {card.line()}")
    for name, value in summary.figures(work).items():
        console.print(f"  {name:<32}{value:.4g}" if isinstance(value, float) else f"  {name:<32}{value}")
    for warning in summary.warnings(work):
        console.print(f"  Warning: {warning}", style="yellow")
    console.print(f"  Report: {work.report_file}")
    if work.settings.static:
        console.print("To see it (gsn-tiny and all methods of Nerfstudio train on it):")
        console.print(f"  {typed('semfield')} attach --data {work.root}", style="bold")
        return
    if work.settings.labels is None:
        console.print(f"To label some frames first, see {work.root / 'annotate' / 'README.txt'}")
    console.print("To train on it:")
    method = "semantic-flow-splat-tiny" if work.registration.one_place else "semantic-flow-tiny"
    console.print(f"  {typed('ns-train')} {method} --data {work.root}", style="bold")
