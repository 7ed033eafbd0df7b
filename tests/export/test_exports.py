"""Masks, annotations, videos and point clouds of views whose truth is known, read back by other programs."""

import json
from contextlib import ExitStack

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image
from plyfile import PlyData
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from semfield_ns.errors import SemfieldError
from semfield_ns.export.clouds import CloudWriter, thin
from semfield_ns.export.masks import CocoWriter, MaskWriter, VideoWriter
from semfield_ns.export.views import Label, LabelledView, paint, palette
from semfield_ns.export.world import affine
from semfield_ns.scenes.synthetic import make_scene
from tests.export.synthetic import labels_of, view_of


@pytest.fixture(scope="module")
def scene():
    return make_scene("static", 0, 6, 81, 60)


@pytest.fixture(scope="module")
def views(scene):
    return [view_of(scene, scene.camera_at(index), f"{index:03d}", index / 5) for index in range(6)]


def write(writer, views):
    for view in views:
        writer.add(view)
    return writer.finish()


def frames_of(video):
    # By imageio: mediapy asks ffmpeg 9, which imageio-ffmpeg brings, for an option that it has no more.
    return iio.imread(video, plugin="FFMPEG")


def test_masks_are_pictures_of_ids_and_of_each_label(scene, views, tmp_path):
    labels = labels_of(scene)[:2]
    write(MaskWriter(tmp_path, labels), views)
    for view in views:
        image = Image.open(tmp_path / "masks" / "ids" / f"{view.name}.png")
        ids = np.array(image)
        assert np.array_equal(np.array(image.convert("RGB")), palette(labels)[ids])
        assert np.array_equal(ids, np.where(view.ids <= 2, view.ids, 0)) and ids.dtype == np.uint8
        for label in labels:
            mask = np.array(Image.open(tmp_path / "masks" / label.file_name / f"{view.name}.png"))
            assert np.array_equal(mask, 255 * (view.ids == label.id))


def test_annotations_decode_to_the_masks(scene, views, tmp_path):
    labels = labels_of(scene)
    (path,) = write(CocoWriter(tmp_path, labels), views)
    dataset = COCO(str(path))
    assert len(dataset.imgs) == 6 and dataset.imgs[3]["time"] == pytest.approx(0.4)
    assert {c["id"]: c["name"] for c in dataset.cats.values()} == {label.category: label.name for label in labels}
    found = {}
    for annotation in dataset.anns.values():
        mask = dataset.annToMask(annotation).astype(bool)
        found[annotation["image_id"], annotation["category_id"]] = mask
        columns, rows = np.nonzero(mask.any(axis=0))[0], np.nonzero(mask.any(axis=1))[0]
        box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
        assert annotation["bbox"] == box and annotation["area"] == mask.sum()
        assert annotation["area"] == coco_mask.area(dataset.annToRLE(annotation))
    for number, view in enumerate(views, start=1):
        for label in labels:
            truth = view.ids == label.id
            assert np.array_equal(found.get((number, label.category), np.zeros_like(truth)), truth)


def test_objects_of_one_class_share_its_category(tmp_path):
    labels = [Label(3, "ball#1", (255, 0, 0), 2, 1), Label(4, "ball#2", (200, 0, 0), 2, 2)]
    ids = np.array([[0, 3, 3], [4, 4, 0]])
    camera = view_of(make_scene("static", 0, 2, 8, 6), np.eye(4), "x").camera
    (path,) = write(CocoWriter(tmp_path, labels), [LabelledView("a", camera, np.zeros((2, 3, 3), np.uint8), ids)])
    content = json.loads(path.read_text())
    assert content["categories"] == [{"id": 2, "name": "ball"}]
    assert [entry["instance_id"] for entry in content["annotations"]] == [1, 2]


def test_videos_have_a_frame_a_view(scene, views, tmp_path, ffmpeg):
    labels = labels_of(scene)
    with ExitStack() as files:
        masks, overlay = write(VideoWriter(tmp_path, labels, 10, files), views)
    for path in (masks, overlay):
        assert frames_of(path).shape == (6, 60, 80, 3), "even sizes, which encoders take"
    shown = np.asarray(frames_of(overlay)[2], float)
    assert np.abs(shown - paint(views[2], labels)[:, :80]).mean() < 8  # compressed
    assert np.asarray(frames_of(masks)[2], float)[views[2].ids[:, :80] == 0].mean() < 8
    other = view_of(make_scene("static", 0, 2, 40, 30), np.eye(4), "other")
    with pytest.raises(SemfieldError, match="views of one size"), ExitStack() as files:
        write(VideoWriter(tmp_path / "b", labels, 10, files), [views[0], other])
    assert list((tmp_path / "b").iterdir()) == [], "half a video is no video"


def test_points_lie_on_the_surfaces_of_their_label(scene, views, tmp_path):
    labels = labels_of(scene)
    world = affine([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3]], 0.5)  # as if the model's world were another one
    paths = write(CloudWriter(tmp_path, labels, world), views)
    cloud = PlyData.read(paths[0])
    vertices = cloud["vertex"].data
    points = np.stack([vertices[axis] for axis in "xyz"], axis=-1).astype(float)
    in_model = points @ world[:3, :3].T + world[:3, 3]
    # Seen again by a camera: a point of a label falls on pixels of that label, or just beside them.
    view = views[3]
    pose = np.array(view.camera.camera_to_world).reshape(3, 4)
    local = (in_model - pose[:, 3]) @ pose[:, :3]
    column = (view.camera.cx - view.camera.fx * local[:, 0] / local[:, 2]).astype(int)
    row = (view.camera.cy + view.camera.fy * local[:, 1] / local[:, 2]).astype(int)
    inside = (local[:, 2] < 0) & (row >= 0) & (row < 60) & (column >= 0) & (column < 81)
    depth = view.depth[row[inside], column[inside]]
    on_surface = np.abs(-local[inside, 2] - depth) < 0.02 * depth
    categories = np.zeros(256, int)
    for label in labels:
        categories[label.id] = label.category
    truth = categories[view.ids[row[inside], column[inside]]]
    agree = (vertices["class"][inside] == truth)[on_surface]
    assert on_surface.sum() > 1000 and agree.mean() > 0.95
    assert [comment.split()[:2] for comment in cloud.comments] == [["class", str(label.category)] for label in labels]
    for label, path in zip(labels, paths[1:], strict=True):
        part = PlyData.read(path)["vertex"].data
        assert len(part) and (part["class"] == label.category).all() and (part["instance"] == label.instance).all()
    assert sum(len(PlyData.read(path)["vertex"].data) for path in paths[1:]) == (vertices["class"] > 0).sum()


def test_a_cell_takes_the_label_of_most_of_its_points():
    points = np.array([[0, 0, 0], [0.01, 0, 0], [0.02, 0, 0], [1, 0, 0], [1, 0.01, 0]])
    colors = np.array([[10, 0, 0], [20, 0, 0], [30, 0, 0], [90, 0, 0], [92, 0, 0]], np.uint8)
    where, shades, ids = thin(points, colors, np.array([5, 2, 5, 7, 3], np.uint16), 8)
    assert len(where) == 2
    order = np.argsort(where[:, 0])
    assert ids[order].tolist() == [5, 3], "a tie goes to the smaller id"
    assert shades[order, 0].tolist() == [20, 91] and np.allclose(where[order], [[0.01, 0, 0], [1, 0.005, 0]])


def test_views_without_surface_give_no_points(views, scene, tmp_path):
    bare = LabelledView("bare", views[0].camera, views[0].rgb, views[0].ids)
    with pytest.raises(SemfieldError, match="--load-config"):
        CloudWriter(tmp_path, labels_of(scene), np.eye(4)).add(bare)
