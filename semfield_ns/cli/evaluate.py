"""`semfield evaluate`: a run against the truth and against copied and flow-carried labels, with a page of pictures."""

import html
from dataclasses import asdict
from pathlib import Path

from semfield_ns.evaluation.protocol import Protocol


def evaluate(load_config: Path, output_dir: Path, protocol: Protocol = "auto", suggest_frames: int = 0) -> None:
    """Evaluate a run and write evaluation.json, evaluation.md and a page of pictures, index.html.

    On frames of the training video whose labels were hidden, the nearest labelled frame copied, chained optical flow
    and a linear head on the frame's own features are evaluated as well.

    Args:
        load_config: config.yml of a trained run.
        output_dir: Folder for the results.
        protocol: Which frames. held-out: those that the scene holds out. unlabelled: training frames whose labels the
            schedule hid. train: every 8th training frame. auto: the first of these that there are. strokes: simulated
            strokes in a training view, judged in the held-out views (five seeds; writes strokes.json and strokes.md).
            nvidia: held-out views. completion, tracking: unlabelled frames of a run with labels scattered-P% or
            first-P%. adaptation: as auto, for a run that began with --load-checkpoint.
        suggest_frames: Also say which frames to label next, this many: those that the run is least certain of.
    """
    if protocol == "strokes":
        _evaluate_strokes(load_config, output_dir)
        return
    from PIL import Image

    from semfield_ns.evaluation.run import evaluate_run, markdown
    from semfield_ns.io import atomic_path, write_json

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
        with atomic_path(output_dir / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(table)
    if found.suggested:
        print(f"Frames to label next: {', '.join(found.suggested)}")
    print(f"Wrote {output_dir / 'evaluation.json'}, evaluation.md and index.html")


def _evaluate_strokes(load_config: Path, output_dir: Path) -> None:
    from PIL import Image

    from semfield_ns.evaluation.strokes import METHODS, evaluate_strokes
    from semfield_ns.io import atomic_path, write_json

    found = evaluate_strokes(load_config)
    for name, picture in found.pictures.items():
        with atomic_path(output_dir / "pictures" / f"{name}.png") as temporary:
            Image.fromarray((picture * 255).byte().numpy()).save(temporary)
    write_json(output_dir / "strokes.json", {"samples": [asdict(sample) for sample in found.samples]})
    with atomic_path(output_dir / "strokes.md") as temporary:
        temporary.write_text(f"{found.table()}\n", encoding="utf-8")
    print(found.table())
    print(f"Wrote {output_dir / 'strokes.json'}, strokes.md and pictures ({', '.join(METHODS)}, from left to right)")


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
