"""Evaluation of a trained run from Python; `ns-eval` does the same from the command line."""

from dataclasses import dataclass
from pathlib import Path

from semfield_ns.errors import SemfieldError
from semfield_ns.evaluation.metrics import ConfusionMatrix


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation of a run over its held-out views found."""

    metrics: dict[str, float]
    """psnr, ssim, miou, accuracy, ... as `ns-eval` writes them"""
    confusion_matrix: ConfusionMatrix | None
    """counts over all views; None for a scene without labels"""
    class_names: tuple[str, ...]
    """names of the rows and columns of the matrix"""
    checkpoint: Path
    """the file the weights came from"""


def evaluate_run(config_path: Path) -> Evaluation:
    """Loads a run and evaluates it on its held-out views.

    Args:
        config_path: the run's config.yml. Like every command of Nerfstudio this trusts it: a config.yml can run code.

    Raises:
        SemfieldError: there is no such file.
    """
    from nerfstudio.utils.eval_utils import eval_setup

    if not config_path.is_file():
        raise SemfieldError(f"{config_path} is not a file: give the config.yml of a trained run.")
    _, pipeline, checkpoint, _ = eval_setup(config_path, test_mode="test")
    metrics = pipeline.get_average_eval_image_metrics()
    dataset = pipeline.datamanager.eval_dataset
    label_map = dataset.metadata.get("label_map") if dataset is not None else None
    matrix = getattr(pipeline.model, "confusion_matrix", None)
    return Evaluation(metrics, matrix, tuple(label_map.names) if label_map else (), checkpoint)
