import numpy as np
import pytest
import torch
from PIL import Image

from semfield_ns.scenes.dataparser import SemfieldDataParserConfig
from semfield_ns.scenes.dataset import SceneDataset
from semfield_ns.scenes.labels import IGNORE
from tests.scenes.helpers import (
    HEIGHT,
    NUM_FRAMES,
    WIDTH,
    class_ids,
    edit,
    picture,
    save_png,
    square,
    write_llff_scene,
    write_nvidia_scene,
    write_transforms_scene,
)


def dataset(root, split="train", scale_factor=1.0, **fields):
    config = SemfieldDataParserConfig(data=root, **{"estimate_flow": False, **fields})
    return SceneDataset(config.setup().get_dataparser_outputs(split), scale_factor)


def test_an_item(tmp_path):
    data = dataset(write_transforms_scene(tmp_path))
    item = data[1]
    shapes = {key: (tuple(value.shape), value.dtype) for key, value in item.items() if key != "image_idx"}
    assert shapes == {
        "image": ((HEIGHT, WIDTH, 3), torch.float32),
        "semantics": ((HEIGHT, WIDTH, 1), torch.int64),
        "dynamic_mask": ((HEIGHT, WIDTH, 1), torch.float32),
        "depth": ((HEIGHT, WIDTH, 1), torch.float32),
        "flow_forward": ((HEIGHT, WIDTH, 3), torch.float32),
        "flow_backward": ((HEIGHT, WIDTH, 3), torch.float32),
    }
    assert item["image_idx"] == 1
    np.testing.assert_allclose(item["image"], picture(1) / 255, atol=1e-6)
    assert np.array_equal(item["semantics"][..., 0], class_ids(1))
    assert np.array_equal(item["dynamic_mask"][..., 0], square(1))
    torch.testing.assert_close(item["depth"], torch.full((HEIGHT, WIDTH, 1), 1 / 0.9))
    assert item["flow_forward"][0, 0].tolist() == [1, 0, 0]
    assert item["flow_backward"][4, 4].tolist() == [-1, 0, 1]
    assert data[0]["flow_backward"].abs().max() == 0
    assert data.get_data(0, image_type="uint8")["image"].dtype == torch.uint8


def test_hidden_labels_read_as_no_label(tmp_path):
    root = write_transforms_scene(tmp_path)
    (root / "labels" / "002.png").write_bytes(b"never read")
    save_png(root / "labels" / "002.png", np.full((HEIGHT, WIDTH), 99, np.uint8))  # an unknown id: reading would raise
    data = dataset(root, labels="0,1")
    assert (data[2]["semantics"] == IGNORE).all()
    assert (data[1]["semantics"] != IGNORE).all()


def test_items_have_the_same_keys_where_frames_lack_files(tmp_path):
    root = write_transforms_scene(tmp_path)

    def strip(meta):
        for key in ("semantic_path", "dynamic_mask_path", "depth_file_path", "flow_fwd_path", "flow_bwd_path"):
            del meta["frames"][1][key]
        meta["frames"][2]["mask_path"] = "masks/002.png"

    edit(root, strip)
    data = dataset(root)
    items = [data[i] for i in range(NUM_FRAMES)]
    assert len({frozenset(item) for item in items}) == 1
    assert (items[1]["semantics"] == IGNORE).all()
    assert (items[1]["dynamic_mask"] == -1).all()
    assert (items[1]["depth"] == 0).all()
    assert items[1]["mask"].all()
    assert items[1]["mask"].dtype == torch.bool
    assert np.array_equal(items[2]["mask"][..., 0], square(2))


def test_what_a_scene_lacks_is_not_in_its_items(tmp_path):
    assert set(dataset(write_llff_scene(tmp_path))[0]) == {"image_idx", "image"}


def test_an_empty_mask_and_an_absent_class_are_normal(tmp_path):
    root = write_transforms_scene(tmp_path)
    save_png(root / "masks" / "001.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    save_png(root / "labels" / "001.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    item = dataset(root)[1]
    assert item["dynamic_mask"].sum() == 0
    assert item["semantics"].max() == 0


def test_disparity_of_another_resolution_is_resized(tmp_path):
    item = dataset(write_nvidia_scene(tmp_path / "s"))[2]
    assert item["depth"].shape == (HEIGHT, WIDTH, 1)
    torch.testing.assert_close(item["depth"], torch.full((HEIGHT, WIDTH, 1), 3.5))


def test_held_out_images_of_twice_the_size_are_reduced(tmp_path):
    data = dataset(write_nvidia_scene(tmp_path / "s", held_out=True), "test")
    item = data[5]
    time = int(data.frames[5].time)
    assert item["image"].shape == (HEIGHT, WIDTH, 3)
    assert np.abs(item["image"].numpy() * 255 - picture(time)).mean() < 6  # JPEG
    assert np.array_equal(item["semantics"][..., 0], class_ids(time))


@pytest.mark.parametrize("how", ["downscale_factor", "scale_factor"])
def test_everything_shrinks_together(tmp_path, how):
    root = write_transforms_scene(tmp_path)
    edit(root, lambda meta: [frame.update(mask_path=frame["dynamic_mask_path"]) for frame in meta["frames"]])
    data = dataset(root, downscale_factor=2) if how == "downscale_factor" else dataset(root, scale_factor=0.5)
    item = data[1]
    for key in ("image", "mask", "semantics", "dynamic_mask", "depth", "flow_forward"):
        assert item[key].shape[:2] == (6, 8), key
    assert item["flow_forward"][0, 0].tolist() == [0.5, 0, 0]
    assert (data.cameras.fx[0].item(), data.cameras.cx[0].item(), data.cameras.width[0].item()) == (10, 4, 8)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_other_kinds_of_images_become_rgb(tmp_path, mode):
    root = write_transforms_scene(tmp_path)
    Image.fromarray(picture(1)).convert(mode).save(root / "images" / "001.png")
    assert dataset(root)[1]["image"].shape == (HEIGHT, WIDTH, 3)


def test_a_real_scene(data_root):
    item = dataset(data_root / "semantic_nvidia" / "Balloon1", labels="scattered-25%")[1]
    assert sorted(item["semantics"].unique().tolist()) == [0, 1, 2]
    assert item["flow_forward"][..., 2].mean() > 0.5
    assert item["depth"].min() > 0
