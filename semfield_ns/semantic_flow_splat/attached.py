"""A splat that another program trained as a run: its Gaussians as they are, with a teacher's features of its views.

The folder of the run has a scene of its own, `scene/`, with views of the splat or the given photos, and a copy of the
file, `scene/splat.ply`, whose rows are the Gaussians of the model: exports are made of these.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.engine.trainer import TrainerConfig
from torch import Tensor

from semfield_ns.errors import SemfieldError
from semfield_ns.gaussians.harmonics import colours
from semfield_ns.gaussians.rasterize import Rendering, render
from semfield_ns.gaussians.splats import Splats, splats_of
from semfield_ns.gaussians.viewpoints import intrinsics, viewpoints
from semfield_ns.io import atomic_path, write_png
from semfield_ns.run_folder import CHECKPOINTS, write_run
from semfield_ns.scenes.formats.ply import Ply
from semfield_ns.scenes.formats.splats import CHUNK
from semfield_ns.scenes.formats.transforms import write_transforms
from semfield_ns.scenes.scene import Frame, Scene, assemble_scene
from semfield_ns.semantic_flow_splat.config import SemanticFlowSplatModelConfig
from semfield_ns.semantic_flow_splat.datamanager import SPLAT, SplatDataManagerConfig
from semfield_ns.semantic_flow_splat.model import SemanticFlowSplatModel

TIMESTAMP = "attached"
VIEWS, WIDTH, HEIGHT = 24, 480, 360
"""pictures of a splat without photos, at most, and their size, px"""
LONGEST_SIDE = 1008
"""px: photos that are larger are read at a whole fraction of their size"""
BACKGROUND = 0.5
"""grey level behind everything, as the model has it"""
CHANNELS, FEWEST, FEATURE_NUMBERS = 48, 8, 1 << 26
"""of features: the most, the fewest, and how many of all Gaussians together"""
UPS = {
    sign + axis: tuple(float(way) * (axis == other) for other in "xyz")
    for sign, way in (("", 1), ("-", -1))
    for axis in "xyz"
}
"""directions by name"""

Watch = Callable[[Sequence[int]], Iterable[int]]


def up_of(splats: Ply) -> str:
    """The direction that is up, by what `ns-export` notes in its files; else that of COLMAP, -y."""
    marks = [line.split(":")[1].strip() for line in splats.comments if line.startswith("comment Vertical Axis:")]
    return next((mark for mark in marks if mark in UPS), "-y")


def parts_of(splats: Ply) -> Iterator[Splats]:
    """All Gaussians of a file, some after another."""
    for start in range(0, len(splats), CHUNK):
        yield splats_of(splats.vertices[start : start + CHUNK])


def poses_around(splats: Splats, up: str) -> Float[Tensor, "views 3 4"]:
    """Poses, OpenGL, from which pictures show a splat well; see `viewpoints`.

    Args:
        splats: of a file.
        up: one of `UPS`, in the world of the file.

    Raises:
        SemfieldError: it is seen from fewer than two places.
    """
    poses = viewpoints(splats.gaussians, torch.tensor(UPS[up]), VIEWS)
    if len(poses) < 2:
        raise SemfieldError("The Gaussians are seen from one place only: give --data, photos with their cameras.")
    return poses


def write_rendered_scene(
    splats: Splats,
    poses: Float[Tensor, "views 3 4"],
    folder: Path,
    antialiased: bool = False,
    device: torch.device | str = "cpu",
    watch: Watch = lambda numbers: numbers,
) -> Path:
    """Writes pictures of a splat as a scene.

    Args:
        splats: of a file.
        poses: of the cameras, at least two, in the world of the file.
        folder: of the scene.
        antialiased: whether the splat was trained that way.
        device: to render on.
        watch: goes through the pictures.

    Returns:
        The transforms.json, in the world of the file.
    """
    gaussians, coefficients = splats.gaussians.to(device), splats.coefficients.to(device)
    lens, background = intrinsics(WIDTH, HEIGHT), torch.full((3,), BACKGROUND, device=device)
    frames, depths = [], []
    for number in watch(range(len(poses))):
        pose = poses[number]
        seen = gaussians.with_channels(colours(coefficients, gaussians.means, pose.to(device)))
        picture: Rendering = render(
            seen, pose, lens, WIDTH, HEIGHT, background=background, depth=True, antialiased=antialiased
        )
        assert picture.depth is not None, "asked for above"
        depths.append(picture.depth[picture.accumulation > 0.5].cpu())
        image = folder / "images" / f"{number:04d}.png"
        write_png(image, (picture.channels.clamp(0, 1) * 255).round().byte().cpu().numpy())
        c2w = np.eye(4)
        c2w[:3] = pose.numpy()
        frames.append(Frame(image, c2w, *lens, WIDTH, HEIGHT, camera_id=f"{number:04d}"))
    # Quantiles of torch are of few values only.
    near, far = np.quantile(torch.cat(depths).numpy(), (0.01, 0.99))
    return write_transforms(assemble_scene(folder, frames, near=float(near), far=max(float(far), 1.01 * near)), folder)


def write_given_scene(scene: Scene, folder: Path) -> Path:
    """Writes the photos of a scene as those of one moment, without labels, depth and flow; its transforms.json."""

    def plain(frame: Frame, number: int) -> Frame:
        return replace(
            frame,
            time=0.0,
            time_index=0,
            camera_id=f"{number:04d}",
            semantic_path=None,
            instance_path=None,
            dynamic_mask_path=None,
            object_mask_path=None,
            flow_fwd_path=None,
            flow_bwd_path=None,
            depth_path=None,
        )

    frames = [plain(frame, number) for number, frame in enumerate((*scene.train, *scene.test))]
    return write_transforms(assemble_scene(folder, frames, near=scene.near, far=scene.far), folder)


def prepare(config: TrainerConfig, name: str, output_dir: Path) -> tuple[TrainerConfig, Path]:
    """The configuration of the run of a splat, and the folder of its scene.

    Args:
        config: a preset of semantic-flow-splat.
        name: of the splat.
        output_dir: the run goes to OUTPUT_DIR/NAME/METHOD/attached.
    """
    config = deepcopy(config)
    config.output_dir, config.experiment_name, config.timestamp = Path(output_dir).resolve(), name, TIMESTAMP
    return config, config.get_base_dir() / "scene"


def clear(config: TrainerConfig) -> None:
    """Removes what an earlier run left where that of `prepare` will be; what people saved beside it stays."""
    for old in ("scene", CHECKPOINTS):
        shutil.rmtree(config.get_base_dir() / old, ignore_errors=True)


def write_attached(
    config: TrainerConfig,
    file: Path,
    splats: Ply,
    degree: int,
    world: Float[np.ndarray, "4 4"],
    teacher: str,
    antialiased: bool = False,
) -> Path:
    """Writes the run of a splat whose scene is there.

    Args:
        config: of `prepare`.
        file: with the splat.
        splats: its content.
        degree: of its spherical harmonics.
        world: from that of the file to the scene's own.
        teacher: of the features.
        antialiased: whether the splat was trained that way.

    Returns:
        The config.yml.

    Raises:
        SemfieldError: the scene cannot be read, or there is no such teacher.
    """
    scene = config.get_base_dir() / "scene"
    with atomic_path(scene / SPLAT) as temporary:
        shutil.copyfile(file, temporary)
    model_config, manager = config.pipeline.model, config.pipeline.datamanager
    assert isinstance(model_config, SemanticFlowSplatModelConfig) and isinstance(manager, SplatDataManagerConfig)
    model_config.num_shades, model_config.flow_attention = 0, False
    model_config.harmonics_degree, model_config.antialiased = degree, antialiased
    model_config.max_gaussians = max(model_config.max_gaussians, len(splats))
    config.data = manager.data = manager.dataparser.data = scene
    manager.encoder = teacher
    manager.encoder_dim = min(max(FEATURE_NUMBERS // len(splats), FEWEST), CHANNELS)
    manager.dataparser.downscale_factor = _shrinking(scene)
    device = "cuda" if config.machine.device_type == "cuda" else "cpu"
    pipeline = config.pipeline.setup(device=device, test_mode="inference")
    model = pipeline.model
    assert isinstance(model, SemanticFlowSplatModel)
    to_model = np.eye(4)
    to_model[:3] = pipeline.datamanager.train_dataset.metadata["to_model"]
    model.gaussians.fill(len(splats), parts_of(splats), torch.from_numpy(to_model @ world))
    model.describe()
    return write_run(config, 0, pipeline.state_dict())


def _shrinking(scene: Path) -> int:
    from semfield_ns.scenes.formats import read_scene

    longest = max(max(frame.size) for frame in read_scene(scene).train)
    return max(1, round(longest / LONGEST_SIDE))
