"""Files as other programs leave them: read as they are meant, or refused with what to do."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semfield_ns.errors import SemfieldError
from semfield_ns.io import read_mask, read_rgb
from semfield_ns.scenes.dataparser import SemfieldDataParserConfig, of_one_size, resized
from semfield_ns.scenes.dataset import SceneDataset
from semfield_ns.scenes.formats import is_scene, read_scene
from semfield_ns.scenes.labels import LabelMap, SemanticClass
from semfield_ns.scenes.scene import Frame
from tests.scenes.helpers import FOCAL, HEIGHT, WIDTH, edit, picture, pose, save_png, write_transforms_scene

UPPER = np.zeros((6, 8), np.uint8)
UPPER[:3] = 1


# --- lenses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key, value",
    [
        ("camera_model", "EQUIRECTANGULAR"),
        ("camera_model", "THIN_PRISM_FISHEYE"),
        ("camera_type", "spherical"),
        ("lens_model", "fov"),
        ("k5", 0.1),
        ("ftheta_p1", 900.0),
        ("is_latlong", True),
        ("rolling_shutter", [0.0, 0.0, 0.1, 0.0]),
    ],
)
@pytest.mark.parametrize("place", ["file", "frame"])
def test_lenses_that_nothing_undoes_are_refused_wherever_they_are_named(tmp_path, key, value, place):
    root = write_transforms_scene(tmp_path)
    edit(root, lambda meta: (meta if place == "file" else meta["frames"][2]).update({key: value}))
    edit(root, lambda meta: meta.pop("camera_model") if place == "frame" and key != "camera_model" else None)
    with pytest.raises(SemfieldError, match=f"(?s){key}.*undistort"):
        read_scene(root)


@pytest.mark.parametrize(
    "values", [{"camera_model": "OPENCV_FISHEYE"}, {"is_fisheye": True}, {"camera_type": "fisheye"}]
)
def test_a_fisheye_in_a_frame_is_undistorted(tmp_path, values):
    root = write_transforms_scene(tmp_path, flow=False)
    edit(root, lambda meta: [meta.pop("camera_model"), meta["frames"][1].update(values | {"k1": 0.05})])
    frames = (
        SemfieldDataParserConfig(data=root, estimate_flow=False)
        .setup()
        .get_dataparser_outputs("train")
        .metadata["frames"]
    )
    assert [frame.lens is not None for frame in frames] == [False, True, False, False]
    assert frames[1].lens.fisheye


# --- pictures and masks ----------------------------------------------------------------------------------------------


def test_masks_mean_what_people_see(tmp_path):
    def saved(name, image, **options):
        image.save(tmp_path / name, **options)
        return read_mask(tmp_path / name)

    swapped = Image.fromarray(1 - UPPER, "P")
    swapped.putpalette([255, 255, 255, 0, 0, 0])
    cut_out = Image.fromarray(np.dstack([np.zeros((6, 8, 3), np.uint8), 255 * UPPER]), "RGBA")
    whole = Image.fromarray(np.dstack([255 * UPPER] * 3 + [np.full((6, 8), 255, np.uint8)]), "RGBA")
    lossy = Image.fromarray(255 * np.kron(UPPER, np.ones((16, 16), np.uint8)))
    assert (saved("palette.png", swapped) == (UPPER == 1)).all()
    assert (saved("alpha.png", cut_out) == (UPPER == 1)).all()
    assert (saved("opaque.png", whole) == (UPPER == 1)).all()
    assert (saved("deep.png", Image.fromarray(UPPER.astype(np.uint16) * 256)) == (UPPER == 1)).all()
    assert (saved("ids.png", Image.fromarray(7 * UPPER)) == (UPPER == 1)).all()
    assert saved("lossy.jpg", lossy, quality=60).sum() == 16 * 16 * UPPER.sum()


def test_pictures_become_rgb(tmp_path):
    grey = (np.arange(48, dtype=np.uint16) * 1000).reshape(6, 8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert (read_rgb(tmp_path / "grey.png")[..., 0] == grey >> 8).all()
    Image.fromarray(np.dstack([np.zeros((6, 8, 3), np.uint8), 255 * UPPER]), "RGBA").save(tmp_path / "cut.png")
    assert (read_rgb(tmp_path / "cut.png")[..., 0] == 255 * (1 - UPPER)).all()
    for name in ("a.heic", "b.exr"):
        (tmp_path / name).write_bytes(b"?")
    for name, advice in (("a.heic", "pillow-heif|cannot read"), ("b.exr", "convert it to a 16-bit PNG")):
        with pytest.raises(SemfieldError, match=advice):
            read_rgb(tmp_path / name)


def test_depth_of_8_bits_is_refused_where_it_is_metric(tmp_path):
    root = write_transforms_scene(tmp_path)
    save_png(root / "depth" / "001.png", np.full((HEIGHT, WIDTH), 9, np.uint8))
    edit(root, lambda meta: meta["frames"][1].update(depth_file_path="depth/001.png"))
    with pytest.raises(SemfieldError, match="8-bit picture, whose grey levels are no depths"):
        SceneDataset(SemfieldDataParserConfig(data=root).setup().get_dataparser_outputs("train"))[1]


# --- labels ----------------------------------------------------------------------------------------------------------


def test_palettes_count_by_the_colours_of_classes(tmp_path):
    classes = LabelMap(tuple(SemanticClass(str(i), (9 * i, 0, 200)) for i in range(5)))
    image = Image.fromarray(UPPER, "P")
    image.putpalette([27, 0, 200, 36, 0, 200])  # of the classes 3 and 4
    image.save(tmp_path / "a.png")
    assert (classes.read(tmp_path / "a.png") == 3 + UPPER).all()
    image.putpalette([1, 2, 3, 4, 5, 6])  # of nobody: ids
    image.save(tmp_path / "b.png")
    assert (classes.read(tmp_path / "b.png") == UPPER).all()


def test_colours_of_classes_may_be_shares():
    def read(*colors):
        entries = [{"id": i, "name": str(i), "color": color} for i, color in enumerate(colors)]
        return [c.color for c in LabelMap.from_transforms({"classes": entries}).classes]

    assert read([1.0, 0.5, 0], [0, 0, 1]) == [(255, 128, 0), (0, 0, 255)]
    assert read([1, 0, 0], [200, 0, 0]) == [(1, 0, 0), (200, 0, 0)]
    with pytest.raises(SemfieldError, match="colour"):
        read([1.5, 0, 200])


def test_more_classes_than_a_byte_counts(tmp_path):
    classes = LabelMap(tuple(SemanticClass(str(i), (0, 0, 0)) for i in range(300)), 65535)
    save_png(tmp_path / "a.png", np.array([[299, 65535]], np.uint16))
    assert classes.read(tmp_path / "a.png").tolist() == [[299, -1]]


# --- layouts ---------------------------------------------------------------------------------------------------------


def test_intrinsics_of_blender(tmp_path):
    root = write_transforms_scene(tmp_path, flow=False, depth=False)
    angle = 2 * np.arctan(WIDTH / 2 / FOCAL)

    def change(meta):
        for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
            meta.pop(key)
        meta["camera_angle_x"] = angle
        for frame in meta["frames"]:
            frame["file_path"] = "./" + frame["file_path"][:-4]
            frame["transform_matrix"] = (np.array(frame["transform_matrix"]) * [[2.5, 2.5, 2.5, 1]]).tolist()

    edit(root, change)
    for frame, index in zip(read_scene(root).train, range(4), strict=True):
        assert (frame.fx, frame.cx, frame.cy) == (pytest.approx(FOCAL), WIDTH / 2, HEIGHT / 2)
        np.testing.assert_allclose(frame.c2w, pose(index), atol=1e-9)


def test_a_few_missing_pictures_are_left_out(tmp_path, caplog):
    root = write_transforms_scene(tmp_path, flow=True)

    def change(meta):
        for i in range(4, 10):
            save_png(root / f"images/{i:03d}.png", picture(i))
            meta["frames"].append(
                {"file_path": f"images/{i:03d}.png", "time": 20 + i, "transform_matrix": pose(i).tolist()}
            )

    edit(root, change)
    (root / "images/001.png").unlink()
    scene = read_scene(root)
    assert [frame.time for frame in scene.train] == [10, 14, 16, *range(24, 30)]
    assert scene.train[0].flow_fwd_path is None and scene.train[1].flow_bwd_path is None
    assert scene.train[1].flow_fwd_path is not None
    assert "the pictures of 1 of 10 frames are missing" in caplog.text


def test_suffixes_in_another_case(tmp_path):
    root = write_transforms_scene(tmp_path)
    for file in (root / "images").iterdir():
        file.rename(file.with_suffix(".PNG"))
    assert [frame.image_path.name for frame in read_scene(root).train] == ["000.PNG", "001.PNG", "002.PNG", "003.PNG"]


def test_d_nerf(tmp_path):
    for split, times in (("train", (0.5, 0.0, 1.0)), ("test", (0.25,))):
        frames = []
        for n, time in enumerate(times):
            save_png(tmp_path / split / f"r_{n:03d}.png", picture(n))
            frames.append({"file_path": f"./{split}/r_{n:03d}", "time": time, "transform_matrix": pose(n).tolist()})
        (tmp_path / f"transforms_{split}.json").write_text(json.dumps({"camera_angle_x": 0.7, "frames": frames}))
    assert is_scene(tmp_path)
    scene = read_scene(tmp_path)
    assert [frame.time for frame in scene.train] == [0, 0.5, 1] and [frame.time for frame in scene.test] == [0.25]
    assert scene.train[0].image_path.name == "r_001.png"


def test_hypernerf(tmp_path):
    for n in range(4):
        save_png(tmp_path / "rgb" / "2x" / f"{n:06d}.png", picture(n))
        camera = {"orientation": np.diag([1, -1, -1]).tolist(), "position": [0.1 * n, 0, 0], "focal_length": 2 * FOCAL}
        camera |= {"principal_point": [WIDTH, HEIGHT], "image_size": [2 * WIDTH, 2 * HEIGHT], "skew": 0}
        camera |= {"radial_distortion": [0.1, 0, 0], "tangential_distortion": [0, 0], "pixel_aspect_ratio": 1}
        (tmp_path / "camera").mkdir(exist_ok=True)
        (tmp_path / "camera" / f"{n:06d}.json").write_text(json.dumps(camera))
    ids = [f"{n:06d}" for n in range(4)]
    about = {name: {"time_id": n, "camera_id": 0} for n, name in enumerate(ids)}
    (tmp_path / "dataset.json").write_text(json.dumps({"ids": ids, "train_ids": ids[:3], "val_ids": ids[3:]}))
    (tmp_path / "metadata.json").write_text(json.dumps(about))
    (tmp_path / "scene.json").write_text(json.dumps({"scale": 0.5, "near": 0.1, "far": 2.0, "center": [0, 0, 0]}))
    scene = read_scene(tmp_path)
    assert (scene.near, scene.far, len(scene.train), len(scene.test)) == (0.2, 4.0, 3, 1)
    frame = scene.train[2]
    assert (frame.fx, frame.cx, frame.time, frame.distortion[0]) == (FOCAL, WIDTH / 2, 2, 0.1)
    np.testing.assert_allclose(frame.c2w, pose(2), atol=1e-9)
    (tmp_path / "camera" / "000001.json").write_text("{}")
    with pytest.raises(SemfieldError, match="lack 'image_size'"):
        read_scene(tmp_path)
    shutil.rmtree(tmp_path / "rgb")
    with pytest.raises(SemfieldError, match="no folder of images"):
        read_scene(tmp_path)


@pytest.mark.parametrize(
    "files, advice",
    [
        (["keyframes/corrected_cameras/1.json", "keyframes/images/1.jpg"], "ns-process-data polycam"),
        (["metadata", "rgbd/0.jpg"], "ns-process-data record3d"),
        (["bundle.out"], "convert it to COLMAP"),
    ],
)
def test_captures_that_have_to_be_converted_are_named(tmp_path, files, advice):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    with pytest.raises(SemfieldError, match=advice):
        read_scene(tmp_path)


def test_frames_of_several_sizes_are_brought_to_one(tmp_path):
    root = write_transforms_scene(tmp_path)
    small, tall = picture(1)[::2, ::2], np.repeat(picture(2), 2, axis=0)

    def change(meta):
        for frame in meta["frames"]:
            for key in list(frame):
                if key.endswith("_path") and key != "file_path":
                    frame.pop(key)
        for index, image in ((1, small), (2, tall)):
            save_png(root / f"images/{index:03d}.png", image)
            (h, w), frame = image.shape[:2], meta["frames"][index]
            frame.update(w=w, h=h, fl_x=FOCAL * w / WIDTH, fl_y=FOCAL * h / HEIGHT, cx=w / 2, cy=h / 2)
        meta.pop("semantics")

    edit(root, change)
    outputs = SemfieldDataParserConfig(data=root, estimate_flow=False).setup().get_dataparser_outputs("train")
    cameras, data = outputs.cameras, SceneDataset(outputs)
    assert set(cameras.width.flatten().tolist()) == {WIDTH} and set(cameras.height.flatten().tolist()) == {HEIGHT}
    assert cameras.fx.flatten().tolist() == pytest.approx([FOCAL] * 4) == cameras.fy.flatten().tolist()
    for index in range(4):
        assert abs(data[index]["image"].numpy() - picture(index) / 255).mean() < 0.08
    assert [frame.stored_size for frame in data.frames] == [None, (HEIGHT // 2, WIDTH // 2), None, None]


def test_the_largest_of_the_frequent_sizes_is_kept():
    frame = Frame(Path("a.png"), np.eye(4), 20.0, 20.0, 8.0, 6.0, 16, 12)
    sizes = [(6, 8)] * 5 + [(12, 16)] * 3 + [(24, 32)] * 2
    found = of_one_size([resized(frame, *size) for size in sizes])
    assert {frame.size for frame in found} == {(12, 16)}
    assert [frame.stored_size for frame in found] == [(6, 8)] * 5 + [None] * 5


# --- files of other programs and systems -----------------------------------------------------------------------------


def null(meta):
    for frame in meta["frames"]:
        frame["time"] = frame["camera_id"] = frame["mask_path"] = None
    meta["k1"] = meta["camera_model"] = None


def backslashes(meta):
    for frame in meta["frames"]:
        frame.update({key: value.replace("/", "\\") for key, value in frame.items() if key.endswith("_path")})


@pytest.mark.parametrize("change", [null, backslashes, lambda meta: meta.pop("w"), lambda meta: meta.pop("h")])
def test_scenes_as_programs_write_them(tmp_path, change):
    root = write_transforms_scene(tmp_path)
    plain = read_scene(root)
    edit(root, change)
    found = read_scene(root)
    assert [(f.image_path, f.size, f.semantic_path) for f in found.train] == [
        (f.image_path, f.size, f.semantic_path) for f in plain.train
    ]


def test_json_may_begin_with_the_mark_of_its_encoding_and_end_in_capitals(tmp_path):
    root = write_transforms_scene(tmp_path)
    (root / "T.JSON").write_bytes(b"\xef\xbb\xbf" + (root / "transforms.json").read_bytes())
    assert len(read_scene(root / "T.JSON").train) == 4


def test_suffixes_of_labels_may_differ_in_case(tmp_path):
    root = write_transforms_scene(tmp_path)
    for label in (root / "labels").iterdir():
        label.rename(label.with_suffix(".PNG"))
    assert read_scene(root).train[0].semantic_path.name == "000.PNG"


def test_what_is_transparent_in_a_label_has_none(tmp_path):
    label_map = LabelMap((SemanticClass("wall", (0, 0, 0)), SemanticClass("ball", (9, 0, 0))))
    colors = np.zeros((6, 8, 4), np.uint8)
    colors[:3, :, 0], colors[:, :5, 3] = 9, 255
    Image.fromarray(colors).save(tmp_path / "label.png")
    ids = label_map.read(tmp_path / "label.png")
    assert (ids[:3, :5] == 1).all() and (ids[3:, :5] == 0).all() and (ids[:, 5:] == -1).all()


def test_a_principal_point_outside_of_the_picture_is_said(tmp_path, caplog):
    root = write_transforms_scene(tmp_path)
    edit(root, lambda meta: meta.update(cx=40.0))
    read_scene(root)
    assert "principal point (40, 6) is outside of the picture of 16x12 pixels" in caplog.text
