"""Gaussian splats: read and written without loss, and divided into the objects that they are known to belong to."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement
from scipy.ndimage import binary_dilation, binary_erosion

from semfield_ns.errors import SemfieldError
from semfield_ns.export.splats import SplatVotes, SplatWriter, gaussians_of, read_splats
from semfield_ns.export.world import affine, move, world_of_colmap, world_of_run
from semfield_ns.gaussians.values import Gaussians
from semfield_ns.rendering.projection import undistort
from semfield_ns.scenes.formats.ply import Ply, read_ply, write_ply
from semfield_ns.scenes.synthetic import make_scene
from tests.export.surface_splats import surface_splats
from tests.export.synthetic import labels_of, view_of

TURN = affine([[0.0, -1.0, 0.0, 0.3], [0.6, 0.0, -0.8, 1.0], [0.8, 0.0, 0.6, -2.0]], 0.37)


@pytest.fixture(scope="module")
def scene():
    return make_scene("static", 0, 12, 160, 120)


@pytest.fixture(scope="module")
def views(scene):
    return [view_of(scene, scene.camera_at(index), f"{index:03d}") for index in range(12)]


@pytest.fixture(scope="module")
def splats(scene):
    return surface_splats(scene, 24_000)


def bits(vertices: np.ndarray) -> bytes:
    return np.ascontiguousarray(vertices).tobytes()


def test_a_round_trip_keeps_every_bit(splats, tmp_path):
    vertices = splats[0].copy()
    vertices["f_rest_7"][:4] = [np.nan, -0.0, np.float32(1e-42), np.inf]
    write_ply(tmp_path / "a.ply", vertices, ["comment Vertical Axis: z"])
    again = read_ply(tmp_path / "a.ply")
    assert bits(again.vertices) == bits(vertices) and again.comments == ("comment Vertical Axis: z",)
    other = PlyData.read(tmp_path / "a.ply")
    assert bits(other["vertex"].data) == bits(vertices)
    assert tuple(p.name for p in other["vertex"].properties) == vertices.dtype.names
    assert other.comments == ["Vertical Axis: z"]


@pytest.mark.parametrize(("text", "order"), [(True, "="), (False, "<"), (False, ">")])
def test_files_of_others_are_read(tmp_path, text, order):
    kinds = [("x", "f4"), ("red", "u1"), ("y", "f8"), ("z", "f4"), ("n", "i2"), ("m", "u4")]
    values = np.zeros(5, kinds)
    for name, _ in kinds:
        values[name] = np.random.default_rng(0).integers(0, 200, 5) / (4 if name in "xyz" else 1)
    PlyData([PlyElement.describe(values, "vertex")], text=text, byte_order=order).write(tmp_path / "b.ply")
    read = read_ply(tmp_path / "b.ply")
    assert read.properties == values.dtype.names
    assert all(np.array_equal(read.vertices[name], values[name]) for name, _ in kinds)
    write_ply(tmp_path / "c.ply", read.vertices)
    again = PlyData.read(tmp_path / "c.ply")["vertex"]
    assert all(np.array_equal(again[name], values[name]) for name, _ in kinds)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("world", [np.eye(4), TURN], ids=["scene", "other"])
def test_gaussians_get_the_object_that_they_lie_on(scene, views, splats, tmp_path, world):
    vertices, owner = splats
    moved = vertices.copy()
    points = move(np.stack([vertices[axis] for axis in "xyz"], axis=-1).astype(np.float64), world)
    for index, axis in enumerate("xyz"):
        moved[axis] = points[:, index]
        moved[f"scale_{index}"] += np.log(np.cbrt(np.linalg.det(world[:3, :3])))
    write_ply(tmp_path / "scene.ply", moved, ["comment made by a test"])
    labels = labels_of(scene)
    writer = SplatWriter(tmp_path, labels, tmp_path / "scene.ply", np.linalg.inv(world))
    for view in views:
        writer.add(view)
    paths = writer.finish()
    found = np.load(tmp_path / "splats" / "labels.npy")
    for label in labels:
        mine = owner == label.id
        assert mine.sum() > 100 and iou(found == label.id, mine) >= 0.9, label.name
        alone = PlyData.read(tmp_path / "splats" / f"{label.file_name}.ply")
        assert bits(alone["vertex"].data) == bits(moved[found == label.id]), "in the world and the order of the file"
        assert alone.comments == ["made by a test"]
        rest = PlyData.read(tmp_path / "splats" / f"without_{label.file_name}.ply")["vertex"].data
        assert bits(rest) == bits(moved[found != label.id])
    summary = json.loads((tmp_path / "splats" / "labels.json").read_text())
    assert summary["gaussians"] == len(moved)
    assert [entry["gaussians"] for entry in summary["labels"]] == [(found == label.id).sum() for label in labels]
    assert all(entry["agreement"] > 0.9 for entry in summary["labels"])
    assert all(path.is_file() for path in paths)


def small(view, points: np.ndarray) -> Gaussians:
    """Opaque Gaussians of the size of a pixel of the view."""
    pose = torch.tensor(view.camera.camera_to_world).view(3, 4)
    means = torch.from_numpy(points).float()
    size = (0.5 * (means - pose[:, 3]).norm(dim=-1) / view.camera.fx)[:, None].expand(-1, 3)
    turn = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(len(means), 4)
    return Gaussians(means, turn, size, torch.full((len(means),), 0.95), torch.zeros(len(means), 0))


def test_what_is_hidden_does_not_vote(scene, views):
    """A Gaussian behind an object is not on it, though its pixel is."""
    view = views[6]
    rows, columns = np.nonzero(view.ids == 1)
    front = view.points[rows, columns]
    origin = np.array(view.camera.camera_to_world).reshape(3, 4)[:, 3]
    behind = origin + 1.5 * (front - origin)
    votes = SplatVotes(small(view, np.concatenate([front, behind])), 8)
    votes.add(view)
    total = votes.votes.sum(axis=1)
    assert (total[: len(front)] > 0).all() and (votes.votes.argmax(axis=1)[: len(front)] == 1).mean() > 0.97
    # What is in front lets a little light through.
    assert votes.votes[len(front) :, 1].mean() < 0.02 * total[: len(front)].mean()


def test_a_surface_that_the_gaussians_do_not_have_does_not_vote(scene, views, splats):
    """Such as of something that has moved on; where no surface is known, every pixel votes."""
    view = views[6]
    origin = np.array(view.camera.camera_to_world).reshape(3, 4)[:, 3]
    ids = np.full_like(view.ids, 3)
    for points, voting in ((origin + 0.7 * (view.points - origin), False), (view.points, True), (None, True)):
        votes = SplatVotes(gaussians_of(Ply(splats[0]), np.eye(4)), 8)
        votes.add(replace(view, ids=ids, points=points))
        assert (votes.votes[:, 3].sum() > 0.8 * view.ids.size) == voting, points is None
        assert voting or votes.votes.sum() < 1e-2 * view.ids.size


def test_a_lens_that_bends_lines_sees_the_same_labels(scene, views, splats):
    """Labels of the bent picture, made from those of the straight one, come to the same Gaussians."""
    view, bent = views[6], (-0.12, 0.03, 0.0, 0.0, 0.0, 0.0)
    camera = replace(view.camera, distortion=bent)
    rows, columns = np.meshgrid(np.arange(120) + 0.5, np.arange(160) + 0.5, indexing="ij")
    focal, centre = np.array([camera.fx, camera.fy]), np.array([camera.cx, camera.cy])
    straight = undistort(
        torch.tensor((np.stack([columns, rows], axis=-1) - centre) / focal), torch.tensor(bent).double()
    )
    pixels = np.floor(straight.numpy() * focal + centre).astype(int)
    inside = ((pixels >= 0) & (pixels < (160, 120))).all(axis=-1)
    column, row = np.clip(pixels, 0, (159, 119)).transpose(2, 0, 1)
    seen = replace(view, camera=camera, ids=np.where(inside, view.ids[row, column], 0), points=None)
    found = []
    for each in (replace(view, points=None), seen):
        votes = SplatVotes(gaussians_of(Ply(splats[0]), np.eye(4)), 8)
        votes.add(each)
        found.append(votes.votes.argmax(axis=1)[votes.votes.sum(axis=1) > 0.5])
    counts = [np.bincount(ids, minlength=9) for ids in found]
    assert np.abs(counts[0] - counts[1])[1:].max() < 0.08 * counts[0][1:].max()


def test_gaussians_that_no_view_sees_follow_their_neighbours(scene, views):
    view = views[6]
    surface = view.points[view.ids == 1]
    inside = surface.mean(axis=0, keepdims=True) + np.array([0, 0.02, 0])
    below = np.array([[0.0, 1.0, -30.0]])
    votes = SplatVotes(small(view, np.concatenate([surface, inside, view.points[view.ids == 0], below])), 8)
    votes.add(view)
    labels, share = votes.labels()
    assert labels[len(surface)] == 1 and labels[-1] == 0 and share[-1] == 0


def test_another_world_is_noticed(scene, views, splats):
    elsewhere = np.eye(4)
    elsewhere[:3, 3] = 1000.0
    votes = SplatVotes(gaussians_of(Ply(splats[0]), elsewhere), 8)
    for view in views:
        votes.add(view)
    with pytest.raises(SemfieldError, match="dataparser_transforms"):
        votes.labels()


def test_files_that_hold_no_splats_are_named(tmp_path, splats):
    points = np.zeros(3, [(axis, "f4") for axis in "xyz"])
    write_ply(tmp_path / "points.ply", points)
    with pytest.raises(SemfieldError, match="no property 'opacity'"):
        read_splats(tmp_path / "points.ply")
    write_ply(tmp_path / "none.ply", splats[0][:0])
    with pytest.raises(SemfieldError, match="holds no Gaussian"):
        read_splats(tmp_path / "none.ply")
    broken = splats[0][:5].copy()
    broken["y"][2] = np.nan
    write_ply(tmp_path / "broken.ply", broken)
    with pytest.raises(SemfieldError, match="NaN or infinite"):
        read_splats(tmp_path / "broken.ply")
    (tmp_path / "cut.ply").write_bytes((tmp_path / "broken.ply").read_bytes()[:-9])
    with pytest.raises(SemfieldError, match="cannot read"):
        read_splats(tmp_path / "cut.ply")


def test_the_world_of_a_run_of_nerfstudio(tmp_path):
    """Truth by Nerfstudio itself: its parser saves the transform of a scene that ns-process-data turned."""
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
    from PIL import Image

    generator, frames = np.random.default_rng(0), []
    for index in range(4):
        pose = np.eye(4)
        pose[:3, :3] = np.linalg.qr(generator.standard_normal((3, 3)))[0]
        pose[:3, 3] = generator.standard_normal(3)
        frames.append({"file_path": f"{index}.png", "transform_matrix": pose.tolist()})
        Image.new("RGB", (8, 6)).save(tmp_path / f"{index}.png")
    content = {"fl_x": 8, "fl_y": 8, "cx": 4, "cy": 3, "w": 8, "h": 6, "frames": frames}
    for extra in ({}, {"applied_transform": [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0.5]]}):
        (tmp_path / "transforms.json").write_text(json.dumps(content | extra))
        config = NerfstudioDataParserConfig(data=tmp_path, eval_mode="all", load_3D_points=False)
        outputs = config.setup().get_dataparser_outputs("train")
        outputs.save_dataparser_transform(tmp_path / "run" / "dataparser_transforms.json")
        world = world_of_run(tmp_path / "run" / "dataparser_transforms.json", tmp_path)
        expected = outputs.cameras.camera_to_worlds[:, :, 3].numpy()
        places = np.array([frame["transform_matrix"] for frame in frames])[:, :3, 3]
        assert np.allclose(move(places, world), expected, atol=1e-5)
        # What Nerfstudio saves takes points of COLMAP's world.
        saved = affine(outputs.dataparser_transform.numpy(), outputs.dataparser_scale)
        assert np.allclose(move(move(places, world_of_colmap(tmp_path)), saved), expected, atol=1e-5)
    assert torch.is_tensor(outputs.cameras.camera_to_worlds)
    (tmp_path / "run" / "dataparser_transforms.json").write_text('{"transform": [[1, 2]], "scale": 1}')
    with pytest.raises(SemfieldError, match="is not the dataparser_transforms"):
        world_of_run(tmp_path / "run" / "dataparser_transforms.json", tmp_path)


def test_wrong_edges_of_masks_are_outvoted(scene, views, splats):
    """Each view's masks are a pixel too large or too small: what is far from an edge in another view decides."""
    vertices, owner = splats
    votes = SplatVotes(gaussians_of(Ply(vertices), np.eye(4)), 8)
    for index, view in enumerate(views):
        change = binary_dilation if index % 2 else binary_erosion
        ids = np.zeros_like(view.ids)
        for label in labels_of(scene):
            ids[change(view.ids == label.id)] = label.id
        votes.add(replace(view, ids=ids))
    found, _ = votes.labels()
    assert min(iou(found == label.id, owner == label.id) for label in labels_of(scene)) >= 0.9
