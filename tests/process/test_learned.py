"""Learned models with tiny random weights go the way that real ones go; without weights there is one clear line."""

import numpy as np
import pytest
import torch

from semfield_ns.io import write_png
from semfield_ns.process import segments
from semfield_ns.process.depth import depth_tool, fit_to_points
from semfield_ns.process.flow import flow_tool
from semfield_ns.process.models import ModelCard, WeightsAbsent, choose
from semfield_ns.process.segments import SAM_MODEL, prompts, sam_tracker, sharpen
from tests.process.helpers import sliding


@pytest.fixture
def empty_caches(tmp_path, monkeypatch):
    """No weights anywhere, and no network."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    # huggingface_hub reads its environment once, when it is imported.
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.fixture(scope="module")
def tiny_depth(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    backbone = transformers.Dinov2Config(
        image_size=56, patch_size=14, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2,
        out_features=["stage1", "stage2"], reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, patch_size=14, reassemble_hidden_size=16, reassemble_factors=[2, 1],
        neck_hidden_sizes=[8, 8], fusion_hidden_size=8, head_in_index=-1, head_hidden_size=8,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("depth")
    transformers.DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    transformers.DPTImageProcessor(size={"height": 56, "width": 56}, ensure_multiple_of=14).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny_sam(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=8, num_attention_heads=1, image_size=[128, 128], blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64], num_attention_heads_per_stage=[1, 1, 2, 2],
        window_size_per_stage=[4, 4, 4, 4], global_attention_blocks=[3],
        window_positional_embedding_background_size=[4, 4],
    )  # fmt: skip
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 32, 16, 8], backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
        fpn_hidden_size=128,
    )  # fmt: skip
    config = transformers.Sam2VideoConfig(
        vision_config=vision, image_size=128,
        prompt_encoder_config={"hidden_size": 128, "image_size": 128, "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": 128, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
        memory_attention_hidden_size=128, memory_attention_num_layers=1, memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[8, 8], memory_encoder_hidden_size=128, memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128, memory_fuser_embed_dim=128, memory_fuser_intermediate_dim=32,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("sam")
    transformers.Sam2VideoModel(config).save_pretrained(folder)
    processor = transformers.Sam2VideoProcessor(
        transformers.Sam2ImageProcessor(size={"height": 128, "width": 128}, mask_size={"height": 32, "width": 32}),
        transformers.Sam2VideoVideoProcessor(size={"height": 128, "width": 128}),
        target_size=128,
    )
    processor.save_pretrained(folder)
    return folder


def test_absent_weights_fall_back_with_one_line_and_fail_with_one_line(empty_caches):
    tool = flow_tool("auto")
    assert "DIS" in tool.card.name
    assert "RAFT" in tool.card.note and "\n" not in tool.card.line()
    for build in (flow_tool, depth_tool):
        with pytest.raises(WeightsAbsent) as failure:
            build("learned")
        assert len(str(failure.value).splitlines()) == 1
    assert depth_tool("auto").predict is None
    assert "hf download depth-anything" in depth_tool("auto").card.note
    mask = {0: np.ones((8, 8), bool)}
    with pytest.raises(WeightsAbsent, match="sam2"):
        sharpen("learned", SAM_MODEL, empty_caches, mask)
    assert "sam2" in sharpen("auto", SAM_MODEL, empty_caches, mask).card.note
    assert flow_tool("classical").card.note == ""


def test_only_absent_weights_are_a_reason_to_fall_back():
    def broken():
        raise RuntimeError("a fault of the program")

    with pytest.raises(RuntimeError, match="a fault"):
        choose("auto", "thing", broken, lambda: None)


def test_a_model_is_named_with_revision_and_licence():
    line = ModelCard("depth", "name", "abc", "MIT", "why").line()
    assert line == "depth: name (abc, MIT). why"


def test_raft_reads_its_weights_from_the_cache_of_torch(empty_caches):
    from torchvision.models import optical_flow

    torch.manual_seed(0)
    file = empty_caches / "hub" / "checkpoints" / optical_flow.Raft_Small_Weights.C_T_V2.url.rsplit("/", 1)[-1]
    file.parent.mkdir(parents=True)
    torch.save(optical_flow.raft_small().state_dict(), file)
    tool = flow_tool("learned", size="small")
    first, second = sliding(2)
    flow = tool.estimate(first[:118, :150], second[:118, :150])
    assert flow.shape == (118, 150, 2) and flow.dtype == np.float32 and np.isfinite(flow).all()
    assert "RAFT small" in tool.card.name and tool.card.revision == "C_T_V2"
    file.write_bytes(b"broken")
    with pytest.raises(WeightsAbsent, match="does not hold the weights"):
        flow_tool("learned", size="small")


def test_depth_of_transformers_fits_the_sparse_points(tiny_depth):
    tool = depth_tool("learned", str(tiny_depth))
    picture = sliding(1)[0]
    predicted = tool.predict(picture)
    assert predicted.shape == picture.shape[:2] and np.isfinite(predicted).all()
    assert tool.card.revision == "local folder" and tool.card.licence == "Apache-2.0"
    pixels = np.random.default_rng(0).random((50, 2)) * [picture.shape[1], picture.shape[0]]
    depth = fit_to_points(predicted, pixels, np.full(50, 3.0), tool.metric)
    assert (depth > 0).all() and np.isfinite(depth).all()


def test_sam_follows_boxes_through_all_frames(tiny_sam):
    frames = sliding(4)
    follow, card = sam_tracker(str(tiny_sam))
    masks = follow(frames, 2, [(10, 10, 50, 60), (80, 20, 120, 90)])
    assert len(masks) == 4 and all(mask.shape == frames[0].shape[:2] and mask.dtype == bool for mask in masks)
    assert str(tiny_sam) in card.name


def test_boxes_are_drawn_around_the_larger_parts_of_the_fullest_mask():
    masks = [np.zeros((100, 100), bool) for _ in range(3)]
    masks[1][10:40, 20:60] = True
    masks[1][70:80, 70:80] = True
    masks[1][90, 90] = True
    assert prompts(masks) == (1, [(20, 10, 60, 40), (70, 70, 80, 80)])


def test_frames_with_labels_prompt_if_there_are_any(tmp_path, monkeypatch):
    asked = []

    def follow(frames, key, boxes):
        asked.append((key, boxes))
        return [np.ones((60, 80), bool) for _ in frames]

    monkeypatch.setattr(segments, "sam_tracker", lambda name, device: (follow, ModelCard("masks", name, "1", "MIT")))
    masks = {number: np.zeros((60, 80), bool) for number in (2, 5, 7)}
    masks[2][10:50, 10:70] = True  # the most motion
    masks[5][20:40, 30:60] = True  # less, but completed by a label
    for number in masks:
        write_png(tmp_path / f"{number:04d}.png", np.zeros((60, 80, 3), np.uint8))
    for labelled, key, box in (([], 0, (10, 10, 70, 50)), ([5], 1, (30, 20, 60, 40))):
        found = sharpen("auto", "model", tmp_path, dict(masks), labelled)
        assert asked.pop() == (key, [box])
        assert all(mask.all() for mask in found.masks.values()) and found.card.name == "model"
