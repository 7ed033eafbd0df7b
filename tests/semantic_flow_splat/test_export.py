"""Exports read back by others: every value, and the picture that these values make."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.lib.recfunctions import structured_to_unstructured
from plyfile import PlyData

from semfield_ns.export.gaussians import write_splats
from semfield_ns.export.views import Label
from semfield_ns.export.world import affine
from semfield_ns.gaussians.harmonics import colours
from semfield_ns.gaussians.values import Gaussians
from tests.gaussians import reference

STEPS = 8


@pytest.fixture(scope="module")
def model(trained):
    """Brightness changes over time."""
    assert float(trained.model.gaussians.shades.abs().max()) > 0
    return trained.model


@pytest.fixture(scope="module")
def to_model(manager) -> np.ndarray:
    outputs = manager.train_dataset._dataparser_outputs
    return affine(outputs.dataparser_transform, float(outputs.dataparser_scale))


@pytest.fixture(scope="module")
def exported(model, to_model, tmp_path_factory) -> Path:
    """The folder of an export of the whole video, with a file for each class."""
    folder = tmp_path_factory.mktemp("export")
    classes = [Label(i + 1, entry.name, entry.color, i + 1, 0) for i, entry in enumerate(model.label_map.classes)]
    write_splats(model, folder, classes, to_model, None, "semantic-flow-splat-tiny")
    return folder / "splats"


def values(file: Path, *prefixes: str) -> np.ndarray:
    """The columns of a file that begin so, in the order of the file: [N, columns]."""
    rows = PlyData.read(file)["vertex"].data
    return structured_to_unstructured(rows[[name for name in rows.dtype.names if name.startswith(prefixes)]])


def read(file: Path) -> tuple[Gaussians, torch.Tensor]:
    """Gaussians and coefficients [N, terms, 3] as the layout of 3-D Gaussian splatting defines them."""
    position, first, rest = values(file, "x", "y", "z"), values(file, "f_dc_"), values(file, "f_rest_")
    coefficients = np.concatenate([first[:, None], rest.reshape(len(rest), 3, -1).transpose(0, 2, 1)], axis=1)
    opacity = 1 / (1 + np.exp(-values(file, "opacity")[:, 0]))
    parts = (position, values(file, "rot_"), np.exp(values(file, "scale_")), opacity, np.zeros((len(rest), 0)))
    return Gaussians(*(torch.tensor(part, dtype=torch.float32) for part in parts)), torch.tensor(coefficients)


@pytest.mark.parametrize("step", [0, 3, STEPS - 1])
def test_what_plyfile_reads_is_what_the_model_has_bit_for_bit(model, to_model, exported, step):
    splats = model.splats(float(step))
    back = np.linalg.inv(to_model)
    factor = np.cbrt(np.linalg.det(back[:3, :3]))
    own = splats.transformed(
        torch.tensor(back[:3, :3] / factor).float(), float(factor), torch.tensor(back[:3, 3]).float()
    )
    file = exported / "video" / f"{step:05d}.ply"
    gaussians = own.gaussians
    wanted = {
        ("x", "y", "z"): gaussians.means,
        ("f_dc_",): own.coefficients[:, 0],
        ("f_rest_",): own.coefficients[:, 1:].transpose(1, 2).flatten(1),
        ("opacity",): torch.logit(gaussians.opacities.clamp(1e-6, 1 - 1e-6))[:, None],
        ("scale_",): gaussians.scales.log(),
        ("rot_",): torch.nn.functional.normalize(gaussians.quaternions, dim=-1),
    }
    for names, value in wanted.items():
        found = values(file, *names)
        assert found.dtype == np.float32 and found.tobytes() == value.numpy().tobytes(), names


def test_the_classes_have_files_of_the_same_rows(model, exported):
    rows, ids = PlyData.read(exported / "scene.ply")["vertex"].data, np.load(exported / "labels.npy")
    assert len(np.unique(ids)) > 2
    for number, entry in enumerate(model.label_map.classes, start=1):
        if (ids == number).any():
            alone = PlyData.read(exported / f"{entry.name}.ply")["vertex"].data
            assert alone.tobytes() == rows[ids == number].tobytes()


@pytest.mark.parametrize("index", [0, 5])
def test_the_files_make_the_pictures_of_the_model(model, manager, scene, exported, index):
    camera = manager.train_dataset.cameras[index : index + 1]
    ours = model.raw_outputs_for_camera(camera)["rgb"]
    step = round(model.step_of(float(camera.times)))
    # The camera is that of the scene's own file: nothing of it came through the model's world.
    content = json.loads((scene / "transforms.json").read_text())
    name = manager.train_dataset.image_filenames[index].name
    frame = next(entry for entry in content["frames"] if Path(entry["file_path"]).name == name)
    pose = torch.tensor(frame["transform_matrix"], dtype=torch.float32)[:3]
    intrinsics = [content[key] for key in ("fl_x", "fl_y", "cx", "cy")]

    def psnr(step: int) -> float:
        gaussians, coefficients = read(exported / "video" / f"{step:05d}.ply")
        seen = gaussians.with_channels(colours(coefficients, gaussians.means, pose))
        picture = reference.render(seen, pose, intrinsics, content["w"], content["h"], background=model.background)[0]
        return -10 * float((picture - ours).square().mean().log10())

    found = psnr(step)
    assert found >= 45, f"{found:.1f} dB"
    assert psnr((step + 4) % STEPS) < found - 10  # another moment is another picture
