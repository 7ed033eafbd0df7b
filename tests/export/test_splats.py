"""Gaussian splats: read and written without loss, and divided into the objects that they are known to belong to."""

import json
from dataclasses import replace

import numpy as np
import pytest
from plyfile import PlyData, PlyElement
from scipy.ndimage import binary_dilation, binary_erosion

from semfield_ns.errors import SemfieldError
from semfield_ns.export.splats import SplatVotes, SplatWriter, read_splats
from semfield_ns.export.world import affine, move, world_of_colmap, world_of_run
from semfield_ns.scenes.formats.ply import read_ply, write_ply
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


def test_what_is_hidden_does_not_vote(scene, views):
    """A Gaussian behind an object is not on it, though its pixel is."""
    view = views[6]
    rows, columns = np.nonzero(view.ids == 1)
    front = view.points[rows, columns]
    origin = np.array(view.camera.camera_to_world).reshape(3, 4)[:, 3]
    behind = origin + 1.5 * (front - origin)
    votes = SplatVotes(np.concatenate([front, behind]), 8)
    votes.add(view)
    total = votes.votes.sum(axis=1)
    assert (total[: len(front)] > 0).all() and (votes.votes.argmax(axis=1)[: len(front)] == 1).mean() > 0.99
    assert (votes.votes[len(front) :, 1] < 1e-3 * total[: len(front)].mean()).all()


def test_gaussians_that_no_view_sees_follow_their_neighbours(scene, views):
    view = views[6]
    surface = view.points[view.ids == 1]
    inside = surface.mean(axis=0, keepdims=True) + np.array([0, 0.02, 0])
    below = np.array([[0.0, 1.0, -30.0]])
    votes = SplatVotes(np.concatenate([surface, inside, view.points[view.ids == 0], below]), 8)
    votes.add(view)
    labels, share = votes.labels()
    assert labels[len(surface)] == 1 and labels[-1] == 0 and share[-1] == 0


def test_another_world_is_noticed(scene, views, splats):
    points = np.stack([splats[0][axis] for axis in "xyz"], axis=-1) + 1000.0
    votes = SplatVotes(points, 8)
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
    import torch
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
    votes = SplatVotes(np.stack([vertices[axis] for axis in "xyz"], axis=-1), 8)
    for index, view in enumerate(views):
        change = binary_dilation if index % 2 else binary_erosion
        ids = np.zeros_like(view.ids)
        for label in labels_of(scene):
            ids[change(view.ids == label.id)] = label.id
        votes.add(replace(view, ids=ids))
    found, _ = votes.labels()
    assert min(iou(found == label.id, owner == label.id) for label in labels_of(scene)) >= 0.9
