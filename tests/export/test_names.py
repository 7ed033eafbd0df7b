"""Results of different views and labels never share a file, whatever they are called."""

import json
from pathlib import Path

import numpy as np
import pytest
from plyfile import PlyData

from semfield_ns.errors import SemfieldError
from semfield_ns.export.clouds import CloudWriter
from semfield_ns.export.gaussians import large_offset, offset_comment
from semfield_ns.export.splats import read_splats
from semfield_ns.export.views import Label, with_files
from semfield_ns.export.world import affine
from semfield_ns.scenes.formats.ply import read_ply, write_ply
from semfield_ns.scenes.synthetic import make_scene
from semfield_ns.sessions.masks import view_names
from tests.export.synthetic import labels_of, view_of


@pytest.mark.parametrize(
    "pictures, names",
    [
        (["images/1.png", "images/2.png"], ["1", "2"]),
        (["cam0/1.png", "cam1/1.png"], ["cam0_1", "cam1_1"]),
        (["cam0/images/1.png", "cam1/images/1.png"], ["cam0_images_1", "cam1_images_1"]),
        (["a/A.png", "b/a.png"], ["a_A", "b_a"]),
        (["a/1.png", "a/1.jpg"], ["1_00000", "1_00001"]),
        (["x/a_b/c.png", "x/a/b_c.png", "a_b_c.png"], ["x_a_b_c", "x_a_b_c", "a_b_c"]),
    ],
)
def test_views_have_names_of_their_own(pictures, names):
    found = view_names([Path(picture) for picture in pictures])
    assert len({name.casefold() for name in found}) == len(pictures)
    if len(set(names)) == len(names):
        assert found == names


def test_labels_have_files_of_their_own():
    names = ["ball", "Ball", "ball#2", "ball_2", "ids", "球", "球!", "..", "", "scene", "without_ball", "long" * 100]
    files = [
        label.file_name for label in with_files([Label(n, name, (0, 0, 0), n, 0) for n, name in enumerate(names, 1)])
    ]
    assert files[0] == "ball" and files[5] == "球"
    assert len({file.casefold() for file in files}) == len(names) and not {"ids", "scene", "", ".."} & set(files)
    assert all(len(file.encode()) < 250 and not file.startswith("without_") for file in files)


def test_large_coordinates_keep_millimetres(tmp_path):
    scene = make_scene("static", 0, 2, 81, 60)
    far = np.eye(4)
    far[:3, 3] = [500_000, 4_500_000, 300]
    view = view_of(scene, scene.camera_at(0), "a", 0.0)
    for name, world in (("near", np.eye(4)), ("far", np.linalg.inv(far))):
        writer = CloudWriter(tmp_path / name, labels_of(scene), affine(world))
        writer.add(view)
        writer.finish()
    near, away = (read_ply(tmp_path / name / "points.ply").points() for name in ("near", "far"))
    assert np.abs(np.sort(near, axis=0) - np.sort(away - far[:3, 3], axis=0)).max() < 1e-3
    to_model = np.linalg.inv(far)
    assert large_offset(to_model).tolist() == [500_000, 4_500_000, 0]
    assert offset_comment(large_offset(to_model)) == ["comment offset 500000 4500000 0"]
    assert not large_offset(np.eye(4)).any() and offset_comment(np.zeros(3)) == []


@pytest.mark.parametrize("name", ["Wände", "стол", "机器人", "a\nb"])
def test_names_in_any_script(tmp_path, name):
    scene = make_scene("static", 0, 2, 81, 60)
    labels = with_files([Label(1, name, (1, 2, 3), 1, 0)])
    writer = CloudWriter(tmp_path, labels, affine(np.eye(4)))
    writer.add(view_of(scene, scene.camera_at(0), "a", 0.0))
    paths = writer.finish()
    assert all(len(PlyData.read(path)["vertex"]) for path in paths)
    json.dumps(labels[0].file_name)


def test_comments_in_any_encoding_are_read(tmp_path):
    vertices = np.zeros(3, [(name, "<f4") for name in ("x", "y", "z")])
    vertices["x"] = [1, 2, 3]
    write_ply(tmp_path / "a.ply", vertices, ["comment by J?rgen"])
    for encoded in ("ü".encode(), "ü".encode("latin-1")):
        (tmp_path / "b.ply").write_bytes((tmp_path / "a.ply").read_bytes().replace(b"J?rgen", b"J" + encoded + b"rgen"))
        assert read_ply(tmp_path / "b.ply").points()[:, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "file, content, name",
    [
        (
            "a.ply",
            b"ply\nformat ascii 1.0\nelement chunk 1\nproperty float min_x\nend_header\n",
            "PlayCanvas",
        ),
        ("a.splat", bytes(64), "antimatter15"),
        ("a.ksplat", bytes(64), "GaussianSplats3D"),
        ("renamed.ply", b"\x1f\x8b\x08\x00rest", "spz"),
        ("a.sog", b"PK\x03\x04rest", "sog"),
        ("a.glb", b"glTF\x02", "glTF"),
        ("step-1.ckpt", b"PK\x03\x04rest", "checkpoint"),
    ],
)
def test_other_formats_of_splats_are_named(tmp_path, file, content, name):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(SemfieldError, match=f"{name}.*convert it"):
        read_splats(tmp_path / file)
