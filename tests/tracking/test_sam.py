"""SAM 2 and SAM 3 with tiny random weights go the way that real ones go."""

import json

import numpy as np
import pytest
import torch

from semfield_ns.cli import main
from semfield_ns.errors import SemfieldError
from semfield_ns.io import write_png
from semfield_ns.tracking import sam
from semfield_ns.tracking.features import FrameFeatures
from semfield_ns.tracking.sam import Sam2, Sam3, painted
from semfield_ns.tracking.tracker import SHARE, Tracker
from tests.process.test_learned import tiny_sam  # noqa: F401 (a fixture)
from tests.tracking.test_tracking import DISKS, SIZE, Colors, moving_disks


@pytest.fixture(scope="module")
def tiny_sam3(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, "Sam3VideoModel"):
        pytest.skip("this transformers has no SAM 3")
    torch.manual_seed(0)
    small = {"num_attention_heads": 2, "intermediate_size": 32}
    part = small | {"hidden_size": 128}
    vit = transformers.Sam3ViTConfig(
        hidden_size=32, num_hidden_layers=2, image_size=112, patch_size=14, window_size=4, global_attn_indexes=[1],
        pretrain_image_size=112, **small,
    )  # fmt: skip
    vision = transformers.Sam3VisionConfig(
        backbone_config=vit, fpn_hidden_size=128, backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]]
    )
    text = small | {"hidden_size": 32, "vocab_size": 300, "projection_dim": 32, "num_hidden_layers": 1}
    detector = transformers.Sam3Config(
        vision_config=vision.to_dict(), text_config=text | {"bos_token_id": 0, "eos_token_id": 1},
        geometry_encoder_config=part | {"num_layers": 1}, detr_encoder_config=part | {"num_layers": 1},
        detr_decoder_config=part | {"num_layers": 1, "num_queries": 5},
        mask_decoder_config={"hidden_size": 128, "num_attention_heads": 2},
    )  # fmt: skip
    tracker = transformers.Sam3TrackerVideoConfig(
        vision_config=vision.to_dict(), image_size=112,
        prompt_encoder_config={"hidden_size": 128, "image_size": 112, "patch_size": 14},
        mask_decoder_config={"hidden_size": 128, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
        memory_attention_hidden_size=128, memory_attention_num_layers=1, memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[8, 8], memory_encoder_hidden_size=128, memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128, memory_fuser_embed_dim=128, memory_fuser_intermediate_dim=32,
    )  # fmt: skip
    # Whatever random weights detect is taken, at once.
    config = transformers.Sam3VideoConfig(
        detector_config=detector.to_dict(), tracker_config=tracker.to_dict(), low_res_mask_size=32,
        score_threshold_detection=0.0, new_det_thresh=0.0,
        hotstart_delay=0, hotstart_unmatch_thresh=0, hotstart_dup_thresh=0,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("sam3")
    transformers.Sam3VideoModel(config).save_pretrained(folder)
    words = ["<|startoftext|>", "<|endoftext|>", "a", "a</w>", "b</w>"]
    transformers.Sam3VideoProcessor(
        transformers.Sam3ImageProcessor(size={"height": 112, "width": 112}, mask_size={"height": 32, "width": 32}),
        transformers.Sam2VideoVideoProcessor(size={"height": 112, "width": 112}),
        transformers.CLIPTokenizer(vocab={word: place for place, word in enumerate(words)}, merges=[]),
        target_size=112,
    ).save_pretrained(folder)
    return folder


def test_sam2_is_another_opinion_in_windows(tiny_sam, monkeypatch):  # noqa: F811
    monkeypatch.setattr(sam, "WINDOW", 2)
    frames, truth = moving_disks(5, DISKS)
    found = list(Sam2(str(tiny_sam)).follow(frames, [3, 2, 1, 0], 4, truth[4], 3))
    assert len(found) == 4 and all(p.shape == (*SIZE, 3) for p in found)
    np.testing.assert_allclose(found[-1].sum(-1), 1, atol=1e-5)
    tracker = Tracker(frames, {0: truth[0]}, 3, FrameFeatures(frames, Colors()), opinion=Sam2(str(tiny_sam)))
    assert tracker.share == SHARE and sorted(r.number for r in tracker.run()) == list(range(5))


class Wrong:
    """An opinion that says background everywhere."""

    def follow(self, frames, numbers, start, labels, classes):
        for _ in numbers:
            yield np.eye(classes, dtype=np.float32)[np.zeros(labels.shape, np.int64)]


class Right(Wrong):
    """One that knows."""

    def __init__(self, truth):
        self.truth = truth

    def follow(self, frames, numbers, start, labels, classes):
        for number in numbers:
            yield np.eye(classes, dtype=np.float32)[self.truth[number]]


def test_another_opinion_counts_as_far_as_it_proves_right():
    frames, truth = moving_disks(5, DISKS)
    given = {0: truth[0], 4: truth[4]}
    assert Tracker(frames, given, 3, FrameFeatures(frames, Colors()), opinion=Wrong()).share == 0
    # Where the pictures tell nothing, somebody who knows is believed.
    noise = list(np.random.default_rng(0).integers(0, 255, (5, *SIZE, 3), dtype=np.uint8))
    assert Tracker(noise, given, 3, FrameFeatures(noise, Colors()), opinion=Right(truth)).share >= 0.75


def test_words_become_labels_of_all_frames(tiny_sam3, tmp_path, monkeypatch):
    monkeypatch.setattr(sam, "WINDOW", 2)
    frames, _ = moving_disks(3, DISKS)
    found = list(Sam3(str(tiny_sam3)).find(frames, ["a", "b"]))
    assert len(found) == 3 and all(ids.shape == SIZE and set(np.unique(ids)) <= {0, 1, 2} for ids in found)
    for number, rgb in enumerate(frames):
        write_png(tmp_path / "video" / f"{number}.png", rgb)
    options = ["--words", "a, b", "--sam-model", str(tiny_sam3)]
    main(["track", str(tmp_path / "video"), "--output-dir", str(tmp_path / "out"), *options])
    classes = json.loads((tmp_path / "out" / "labels" / "classes.json").read_text())["classes"]
    assert [entry["name"] for entry in classes] == ["background", "a", "b"]
    assert len(list((tmp_path / "out" / "labels").glob("*.png"))) == 3


def test_overlapping_words_go_to_the_surer_one():
    masks = np.zeros((2, 2, 3), bool)
    masks[0, :, :2], masks[1, :, 1:] = True, True
    assert painted(masks, [1, 2], [0.9, 0.5]).tolist() == [[1, 1, 2]] * 2
    assert painted(masks, [1, 2], [0.4, 0.5]).tolist() == [[1, 2, 2]] * 2
    assert not painted(masks[:0], [], []).any()


def test_without_weights_there_is_one_sentence(tmp_path):
    with pytest.raises(SemfieldError, match="hf download nobody/nothing"):
        Sam2("nobody/nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SemfieldError, match="does not hold weights of Sam3VideoModel"):
        Sam3(str(tmp_path / "empty"))
    frames, _ = moving_disks(1, DISKS)
    write_png(tmp_path / "video" / "0.png", frames[0])
    source = ["track", str(tmp_path / "video"), "--output-dir", str(tmp_path / "out")]
    with pytest.raises(SemfieldError, match="either --labels"):
        main(source)
    with pytest.raises(SemfieldError, match="facebook/nothing"):
        main([*source, "--words", "a", "--sam-model", "facebook/nothing"])
    with pytest.raises(SemfieldError, match="--words"):
        main([*source, "--words", " , "])
