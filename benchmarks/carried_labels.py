"""How reliable labels carried along the flow are: as measured on labelled frames, and in truth on the hidden ones.

    python benchmarks/carried_labels.py --data FOLDER_OF_REAL_SCENES

Prints the log-odds of being right (start, less per step, less where the flow was doubtful), and the dataset mIoU of
taking the carried labels as they are, and of joining them with a linear classifier of the image features. Nothing is
trained.
"""

from pathlib import Path

import numpy as np
import tyro
from table import DATA, SCENES, TASKS, scene_folder
from training import Job, machine

from semfield_ns.evaluation.run import Truth, score
from semfield_ns.labelling.evidence import frame_flow
from semfield_ns.labelling.propagation import Reliability, carry_from_both_sides, fit_reliability, held_out_gaps, merge
from semfield_ns.semantic_flow.datamanager import FlowDataset


def main(data: Path = DATA, cache: Path = Path("outputs/table"), share: int = 25) -> None:
    """Carry, measure, compare.

    Args:
        data: Folder of the real scenes.
        cache: Where the synthetic scenes are written.
        share: Percentage of labelled frames.
    """
    print(
        "| scene, labels | measured on labelled frames | on the hidden frames | carried labels, mIoU | and classifier |"
    )
    print("|---|---|---|---|---|")
    for scene in SCENES:
        folder = scene_folder(scene, data, cache)
        if not folder.is_dir():
            continue
        everything = FlowDataset(Job(folder).config().pipeline.datamanager.dataparser.setup().get_dataparser_outputs())
        entries = [everything[index] for index in range(len(everything))]
        labels = {index: entry["semantics"][..., 0].numpy() for index, entry in enumerate(entries)}
        flows = [[frame_flow(entry.get(key)) for entry in entries] for key in ("flow_forward", "flow_backward")]
        for prefix in TASKS.values():
            schedule = f"{prefix}-{share}%"
            job = Job(folder, schedule).config().pipeline.datamanager.dataparser
            shown = job.setup().get_dataparser_outputs().metadata["labelled"]
            given, gaps = {index: labels[index] for index in shown}, held_out_gaps(shown, len(entries))
            sources = [carry_from_both_sides(f, given, *flows, gaps.get(f, 1)) for f in range(len(entries))]
            hidden = [index for index in labels if index not in given]
            found, true = (
                fit_reliability((v, labels[f]) for f in frames for v in sources[f] if v is not None)
                for frames in (shown, hidden)
            )
            classes = len(everything.metadata["label_map"])
            nothing = np.zeros(classes)
            joined = {
                f: merge([found.weighted(v, labels[f].shape, classes) for v in sources[f]], nothing) for f in hidden
            }
            truth = Truth({f: labels[f] for f in hidden}, {}, everything.metadata["label_map"].dynamic)
            manager = Job(folder, schedule, scene.masks).config().pipeline.datamanager
            targets = manager.setup(device="cpu", test_mode="val").train_dataset.propagated[..., 0]
            carried = score("carried", {f: entry.labels for f, entry in joined.items()}, truth).miou
            both = score("both", {f: targets[f].numpy().astype(np.int64) for f in hidden}, truth).miou
            cells = f"{_cell(found)} | {_cell(true)} | {carried:.3f} | {both:.3f}"
            print(f"| {scene.name}, {schedule} | {cells} |", flush=True)
    print(f"\n{machine()}")


def _cell(value: Reliability) -> str:
    return f"{value.start:.2f}, {value.per_step:.2f}, {value.doubt:.1f}"


if __name__ == "__main__":
    tyro.cli(main)
