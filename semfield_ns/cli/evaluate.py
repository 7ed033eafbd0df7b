"""`semfield evaluate`: a run against the ground truth and simple baselines, with a page of pictures."""

import html
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from semfield_ns.cli.progress import lines
from semfield_ns.errors import SemfieldError
from semfield_ns.evaluation.protocol import Protocol


def evaluate(load_config: Path, output_dir: Path, protocol: Protocol = "auto", suggest_frames: int = 0) -> None:
    """Measure a run against the ground truth and baselines.

    Writes evaluation.json, evaluation.md, and a page of pictures, index.html. On training frames whose labels were
    hidden, three baselines are evaluated too: the labels of the nearest labelled frame, labels carried along optical
    flow, and a linear classifier of the frame's own features.

    Args:
        load_config: Folder of a trained run, or its config.yml.
        output_dir: Folder for the results.
        protocol: What to evaluate. held-out: the held-out frames. unlabelled: training frames whose labels were hidden
            in training. train: every 8th training frame. auto: the first of these that the scene has. strokes:
            simulated strokes in a training view, evaluated in the held-out views (five seeds; writes strokes.json and
            strokes.md). objects: the tracked objects against the scene's instance images in the training video, as in
            DAVIS, by region similarity J and boundary accuracy F (writes instances.json and instances.md). nvidia:
            held-out views. completion, tracking: unlabelled frames of a run with labels scattered-P% or first-P%.
            adaptation: as auto, for a run that started with --load-checkpoint.
        suggest_frames: Also suggest this many frames to label next: those where the run is least certain.
    """
    if protocol == "strokes":
        _evaluate_strokes(load_config, output_dir)
        return
    if protocol == "objects":
        _evaluate_objects(load_config, output_dir)
        return
    from PIL import Image

    from semfield_ns.evaluation.run import evaluate_run, markdown
    from semfield_ns.io import atomic_path, write_json, write_text

    with lines("Evaluating"):
        found = evaluate_run(load_config, protocol, suggest_frames)
    table = markdown(found.rows)
    rows = [{name: value if value == value else None for name, value in asdict(row).items()} for row in found.rows]
    pictures = output_dir / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    for name, picture in found.pictures.items():
        with atomic_path(pictures / f"{name}.jpg") as temporary:
            Image.fromarray((picture.clamp(0, 1) * 255).byte().numpy()).save(temporary, format="JPEG", quality=88)
    write_json(
        output_dir / "evaluation.json",
        {
            "rows": rows,
            "per_class_iou": found.per_class_iou,
            "frames": found.frames,
            "protocol": protocol,
            "suggested_frames": found.suggested,
        },
    )
    for name, text in (("evaluation.md", f"{table}\n"), ("index.html", page(table, found.frames))):
        write_text(output_dir / name, text)
    print(table)
    if found.suggested:
        print(f"Frames to label next: {', '.join(found.suggested)}")
    print(f"Wrote {output_dir / 'evaluation.json'}, evaluation.md and index.html")


def _evaluate_strokes(load_config: Path, output_dir: Path) -> None:
    from semfield_ns.evaluation.strokes import evaluate_strokes
    from semfield_ns.io import write_json, write_png, write_text

    with lines("Evaluating"):
        found = evaluate_strokes(load_config)
    for name, picture in found.pictures.items():
        write_png(output_dir / "pictures" / f"{name}.png", (picture * 255).byte().numpy())
    write_json(output_dir / "strokes.json", {"samples": [asdict(sample) for sample in found.samples]})
    write_text(output_dir / "strokes.md", f"{found.table()}\n")
    print(found.table())
    print(f"Wrote {output_dir / 'strokes.json'}, strokes.md and pictures (left to right: {'; '.join(found.methods)})")


def _evaluate_objects(load_config: Path, output_dir: Path) -> None:
    from semfield_ns.cli.objects import followed
    from semfield_ns.io import write_json, write_text
    from semfield_ns.metrics.instances import instance_score

    pipeline, tracks, images = followed(load_config)
    truth = true_instances(pipeline, images)
    found = instance_score({step: images[step] for step in truth}, truth)
    table = found.table(tracks.names)
    objects = [asdict(entry) | {"found": entry.found and tracks.names[entry.found - 1]} for entry in found.objects]
    write_json(
        output_dir / "instances.json", {"objects": objects, "J": found.region, "F": found.boundary, "J&F": found.mean}
    )
    write_text(output_dir / "instances.md", f"{table}\n")
    print(table)
    print(f"Wrote {output_dir / 'instances.json'} and instances.md")


def true_instances(pipeline: Any, images: Sequence[Int[np.ndarray, "H W"]]) -> dict[int, Int[np.ndarray, "H W"]]:
    """Time step -> true ids of what may move, of the steps of a run that have instance images.

    Args:
        pipeline: of a run of semantic-flow. What its training was not shown is read from the scene again.
        images: of every time step an image of the size that is wanted.

    Raises:
        SemfieldError: there are none, or they show nothing that may move.
    """
    from semfield_ns.io import capital, read_image
    from semfield_ns.metrics.instances import at_size, moving_instances
    from semfield_ns.scenes.formats import read_scene
    from semfield_ns.scenes.labels import IGNORE

    scene = read_scene(pipeline.datamanager.get_datapath())
    assert scene.label_map is not None, "objects are detected by their class"
    given = {frame.image_path: frame for frame in scene.train}
    trained = pipeline.datamanager.train_dataset.metadata["frames"]
    ids, labels = {}, {}
    for step, source in enumerate(pipeline.model.time_frames()):
        shown, shape = trained[source], images[step].shape
        frame = given[shown.image_path]
        if frame.instance_path is None:
            continue
        whole = np.array(read_image(frame.instance_path, f"{frame.where}, instances")).astype(np.int64)
        if shown.lens is not None:
            raise SemfieldError(
                f"{capital(frame.where)}: its lens distorts the image, and instance images are not undistorted: "
                "undistort the scene first."
            )
        ids[step] = at_size(whole, shape)
        labels[step] = np.full(shape, IGNORE)
        if frame.semantic_path is not None:
            labels[step] = scene.label_map.read(frame.semantic_path, shape, f"{frame.where}, label image", resize=True)
    if not ids:
        raise SemfieldError(f"The scene {scene.root} has no instance images (instance_path) to evaluate objects with.")
    flags = scene.label_map.dynamic
    # As when objects are looked for: where a scene does not say which classes move, any may.
    moving = moving_instances(ids, labels, flags if flags.any() else ~flags)
    if not any(image.any() for image in moving.values()):
        raise SemfieldError(f"No instance image of the scene {scene.root} shows anything of a class that can move.")
    return moving


def page(table: str, frames: list[str]) -> str:
    """An HTML page with the Markdown table and a row of pictures for each frame."""
    head, _, *body = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    rows = [f"<tr>{''.join(f'<th>{html.escape(cell)}</th>' for cell in head)}</tr>"]
    rows += [f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>" for cells in body]
    names = [html.escape(name, quote=True) for name in frames]
    figures = [f'<p>{name}</p><img src="pictures/{name}.jpg" style="width:100%">' for name in names]
    style = "body{font-family:sans-serif;margin:2em}td,th{padding:.2em .8em;text-align:left}"
    legend = "<p>Each row: image, render, true classes, rendered classes, errors.</p>"
    return (
        f'<!doctype html><meta charset="utf-8"><title>Evaluation</title><style>{style}</style>'
        f"<table>{''.join(rows)}</table>{legend}{''.join(figures)}\n"
    )
