"""Run folders made without training: a trained network attached to a new scene, or an official checkpoint imported.

A run folder is what ns-viewer, ns-render and ns-eval open: config.yml, and a checkpoint in nerfstudio_models.
"""

import re
import shutil
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.engine.trainer import TrainerConfig

from semfield_ns.errors import SemfieldError
from semfield_ns.gsn.checkpoints import Kind, export_official, import_official
from semfield_ns.gsn.library import PosedScene, SceneLibrary
from semfield_ns.gsn.model import GSNModel, GSNModelConfig
from semfield_ns.gsn.network import GSNNetwork
from semfield_ns.gsn.sources import nearest_views
from semfield_ns.io import atomic_path, write_png
from semfield_ns.pipeline import INFO_KEY, encode_info
from semfield_ns.run_folder import CHECKPOINTS, NO_CONFIG, write_config, write_run


def read_run(load_config: Path) -> TrainerConfig:
    """The configuration of a run of gsn.

    Raises:
        SemfieldError: there is none, or it is of another method.
    """
    if not load_config.is_file():
        raise SemfieldError(f"{load_config} is not a file: give the config.yml of a trained run.")
    # Nerfstudio's own way to read a run's configuration; like every ns-* command it trusts the file.
    try:
        config = yaml.load(load_config.read_text(encoding="utf-8"), Loader=yaml.Loader)
    except Exception as error:  # whatever the text leads the parser, or the constructors that it names, to
        raise SemfieldError(f"{load_config} {NO_CONFIG}") from error
    if not isinstance(config, TrainerConfig):
        raise SemfieldError(f"{load_config} {NO_CONFIG}")
    if not isinstance(config.pipeline.model, GSNModelConfig):
        raise SemfieldError(f"{load_config} is not a run of gsn: only generalisable models can be attached to a scene.")
    return config


def newest_checkpoint(load_config: Path) -> Path:
    """The checkpoint of most steps beside a config.yml.

    Raises:
        SemfieldError: there is none.
    """
    found = sorted((load_config.parent / CHECKPOINTS).glob("step-*.ckpt"))
    if not found:
        raise SemfieldError(f"The run {load_config.parent} has no checkpoint: train until the first one is saved.")
    return found[-1]


def attach(
    load_config: Path,
    data: Path,
    output_dir: Path,
    images: str | None = None,
    longest_side: int | None = None,
    hold_out: bool = True,
) -> Path:
    """Writes a run folder that shows a scene through the weights of another run.

    Args:
        load_config: config.yml of a run of gsn.
        data: the scene.
        output_dir: the run goes to `output_dir/SCENE/METHOD/attached`; an earlier one is replaced.
        images: image folder of an LLFF scene.
        longest_side: shrink its pictures; as in the run if None.
        hold_out: keep every 8th image for evaluation.

    Returns:
        The config.yml of the new run.
    """
    config = deepcopy(read_run(load_config))
    checkpoint = newest_checkpoint(load_config)
    data = Path(data).resolve()
    parser = config.pipeline.datamanager.dataparser  # type: ignore[attr-defined]
    parser.data, parser.images, parser.hold_out, parser.shown_scene = data, images, hold_out, None
    if longest_side is not None:
        parser.longest_side = longest_side
    # Whatever is wrong with the scene is said before anything is written.
    scenes = parser.setup().scenes
    if len(scenes) > 1:
        raise SemfieldError(f"{data} holds {len(scenes)} scenes: attach one of them, such as {data / scenes[0].name}.")
    config.data = config.pipeline.datamanager.data = data
    config.pipeline.datamanager.scene_weights = ()  # type: ignore[attr-defined]  # of the scenes of training
    config.output_dir, config.experiment_name, config.timestamp = Path(output_dir).resolve(), scenes[0].name, "attached"
    config.load_dir = config.load_checkpoint = None
    folder = config.get_base_dir()
    old = folder / CHECKPOINTS
    if old.is_dir():
        shutil.rmtree(old)
    with atomic_path(old / checkpoint.name) as temporary:
        shutil.copyfile(checkpoint, temporary)
    return write_config(config)


def import_checkpoint(
    file: Path, kind: Kind, preset: TrainerConfig, output_dir: Path, feature_dim: int | None = None
) -> Path:
    """Writes a run folder with the weights of an official checkpoint. It has no scene yet: attach it to one.

    Args:
        file: such as `model_720000.pth`.
        kind: which code wrote it.
        preset: the configuration to start from; sizes and variants of its network are replaced.
        output_dir: the run goes to `output_dir/NAME/METHOD/imported`.
        feature_dim: add an untrained feature head of so many channels to a network that has none (GNT).

    Returns:
        The config.yml of the run.

    Raises:
        SemfieldError: as `import_official`; or the network has a feature head already.
    """
    network = import_official(file, kind)
    if feature_dim is not None:
        network = with_head(network, feature_dim)
    config = deepcopy(preset)
    model_config = config.pipeline.model
    assert isinstance(model_config, GSNModelConfig)
    model_config.network = network.config
    if kind == "gsn":  # distilled already
        model_config.stage_one_steps = 0
    config.output_dir, config.experiment_name, config.timestamp = Path(output_dir).resolve(), file.stem, "imported"
    digits = re.findall(r"\d+", file.stem)
    step = int(digits[-1]) if digits else 0
    return write_run(config, step, pipeline_state(model_config, network))


def export_checkpoint(load_config: Path, output: Path) -> list[str]:
    """Writes the weights of a run's newest checkpoint in the official layout.

    Returns:
        Names of the parts that were written.

    Raises:
        SemfieldError: it is no run of gsn, or the official code has no place for some of its weights.
    """
    model, checkpoint = read_run(load_config).pipeline.model, newest_checkpoint(load_config)
    assert isinstance(model, GSNModelConfig)
    if model.more_teachers:
        raise SemfieldError(f"The run {load_config.parent} has several feature heads; the official code has one.")
    network, prefix = GSNNetwork(model.network), "_model.network."
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["pipeline"]
    network.load_state_dict({key.removeprefix(prefix): value for key, value in state.items() if prefix in key})
    return export_official(network, output)


def with_head(network: GSNNetwork, feature_dim: int) -> GSNNetwork:
    """A network with a new, untrained feature head on top of the given one.

    Raises:
        SemfieldError: it has a head already, or the number of channels does not split into attention heads.
    """
    config = network.config
    if config.feature_dim:
        raise SemfieldError(f"This checkpoint already has a feature head of {config.feature_dim} channels.")
    if feature_dim < 1 or (config.dim + feature_dim) % config.heads:
        raise SemfieldError(f"{feature_dim} feature channels do not fit: take a multiple of {config.heads}.")
    wider = GSNNetwork(replace(config, feature_dim=feature_dim))
    wider.load_state_dict(network.state_dict(), strict=False)
    return wider


def further_training(load_config: Path) -> str:
    """The command that trains an imported network's feature head, and the rest with it at a tenth of its rate."""
    config, checkpoint = read_run(load_config), newest_checkpoint(load_config)
    model = config.pipeline.model
    assert isinstance(model, GSNModelConfig)
    network = model.network
    options = {
        "load-checkpoint": checkpoint,
        "pipeline.model.stage-one-steps": 0,
        "pipeline.model.teacher": model.teacher,
        "pipeline.model.network.feature-dim": network.feature_dim,
        "pipeline.model.network.dim": network.dim,
        "pipeline.model.network.blocks": network.blocks,
        "pipeline.model.network.image-dim": network.image_dim,
        "pipeline.model.network.encoder-width": network.encoder_width,
        "pipeline.model.network.encoder-blocks": " ".join(str(count) for count in network.encoder_blocks),
        "pipeline.model.network.direction": network.direction,
    }
    flags = " ".join(f"--{name} {value}" for name, value in options.items())
    return f"ns-train {config.method_name} --data SCENES {flags}"


def pipeline_state(config: GSNModelConfig, network: GSNNetwork) -> Mapping[str, Any]:
    """What a pipeline with this network saves."""
    box = SceneBox(aabb=torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]))
    nothing = {"library": SceneLibrary([], 0), "shown": 0, "eval_images": []}
    model: GSNModel = config.setup(scene_box=box, num_train_data=0, metadata=nothing, device="cpu", grad_scaler=None)
    model.network.load_state_dict(network.state_dict())
    state: dict[str, Any] = {f"_model.{key}": value for key, value in model.state_dict().items()}
    state[INFO_KEY] = encode_info(model.checkpoint_info())
    return state


def open_run(config: Path) -> GSNModel:
    """The model of a run with its weights, ready to render."""
    from nerfstudio.utils.eval_utils import eval_setup

    model = eval_setup(config, test_mode="inference")[1].model
    assert isinstance(model, GSNModel)
    return model


def scene_of(config: Path, longest_side: int) -> PosedScene:
    """The scene of an attached run, with its pictures at another size.

    Args:
        config: its config.yml.
        longest_side: of pictures, px, at most.
    """
    parser = read_run(config).pipeline.datamanager.dataparser  # type: ignore[attr-defined]
    parser.longest_side = longest_side
    (scene,) = parser.setup().scenes
    return scene


def compute_tokens(model: GSNModel, config: Path) -> bool:
    """Extracts the teacher's features of the shown scene's training images into the cache, where that was not done.

    A projection of every scene (official weights) is fitted here, and written to the run.

    Args:
        model: of an attached run.
        config: its config.yml.

    Returns:
        Whether the model knows features at all.

    Raises:
        SemfieldError: the weights of the teacher are not found.
    """
    # The first stage of training knows no features; official weights are past it.
    if not model.distilled or not (model.knows_features or model.config.stage_one_steps == 0):
        return False
    if not model.knows_features:
        model.prepare_tokens()
        checkpoint = newest_checkpoint(config)
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
        for name in ("projection", "feature_colors", "further"):
            state = model.get_submodule(name).state_dict()
            content["pipeline"] |= {f"_model.{name}.{key}": value.cpu() for key, value in state.items()}
        with atomic_path(checkpoint) as temporary:
            torch.save(content, temporary)
    stores = [each.tokens for each in model.distilled]
    for store in stores if model.matching is None else [*stores, model.matching]:
        store.extract([(model.shown, index) for index in model.library.scenes[model.shown].train])
    return True


def write_preview(model: GSNModel, folder: Path, longest_side: int) -> list[Path]:
    """Renders the shown scene from between its middle cameras; writes a PNG for every kind of picture."""
    scene = model.library.scenes[model.shown]
    middle = scene.train[len(scene.train) // 2]
    camera = deepcopy(scene.cameras[torch.tensor([middle])])
    neighbours = nearest_views(scene.centres[middle], scene.centres, scene.train, 1)
    camera.camera_to_worlds[0, :, 3] = scene.centres[[middle, *neighbours]].mean(dim=0)
    camera.rescale_output_resolution(longest_side / max(int(camera.width), int(camera.height)))
    outputs = model.get_outputs_for_camera(camera)
    paths = []
    for name in ("rgb", "features_pca"):
        if name in outputs:
            paths.append(folder / f"preview_{name}.png")
            write_png(paths[-1], (outputs[name] * 255).round().byte().cpu().numpy())
    return paths
