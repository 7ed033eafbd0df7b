"""Models of every kind of pretrained teacher, with random weights and as small as they can be, in local folders."""

import json
from pathlib import Path

import torch
import transformers

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
WORDS = {"vocab_size": 64, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2, **SMALL}


def write_models(root: Path) -> dict[str, Path]:
    """Folders by the kind of teacher; `dinov2-registers` and `siglip2-naflex` are variants."""
    torch.manual_seed(0)
    encoder = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    models = {
        "dino": transformers.ViTModel(transformers.ViTConfig(patch_size=8, image_size=32, **SMALL)),
        "dinov2": transformers.Dinov2Model(transformers.Dinov2Config(patch_size=14, image_size=56, **encoder)),
        "dinov2-registers": transformers.Dinov2WithRegistersModel(
            transformers.Dinov2WithRegistersConfig(patch_size=14, image_size=56, **encoder)
        ),
        "siglip2": transformers.SiglipModel(
            transformers.SiglipConfig(vision_config={"patch_size": 16, "image_size": 64, **SMALL}, text_config=WORDS)
        ),
        "siglip2-naflex": transformers.Siglip2Model(
            transformers.Siglip2Config(vision_config={"patch_size": 16, "num_patches": 16, **SMALL}, text_config=WORDS)
        ),
        "clip": transformers.CLIPModel(
            transformers.CLIPConfig(
                projection_dim=24, vision_config={"patch_size": 8, "image_size": 32, **SMALL}, text_config=WORDS
            )
        ),
        "sam": transformers.SamModel(_sam_config()),
        "sam2": transformers.Sam2Model(_sam2_config()),
    }
    folders = {}
    for kind, model in models.items():
        folders[kind] = root / kind
        model.save_pretrained(folders[kind])
    _write_tokenizer(folders["clip"])
    return folders


def _sam_config() -> transformers.SamConfig:
    return transformers.SamConfig(
        vision_config={
            **{"hidden_size": 16, "output_channels": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
            **{"image_size": 64, "patch_size": 8, "mlp_dim": 32, "window_size": 4, "num_pos_feats": 16},
            **{"global_attn_indexes": [1], "initializer_range": 0.1},
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": 64, "patch_size": 8, "mask_input_channels": 4},
        mask_decoder_config={**{"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16}},
    )


def _sam2_config() -> transformers.Sam2Config:
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=8, num_attention_heads=1, image_size=[128, 128], blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64], num_attention_heads_per_stage=[1, 1, 2, 2],
        window_size_per_stage=[4, 4, 4, 4], global_attention_blocks=[3],
        window_positional_embedding_background_size=[4, 4],
    )  # fmt: skip
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]], fpn_hidden_size=128,
    )  # fmt: skip
    return transformers.Sam2Config(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 128, "image_size": 128, "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": 128, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
    )


def _write_tokenizer(folder: Path) -> None:
    """CLIP's tokenizer with an alphabet of lower-case letters."""
    pieces = ["<|pad|>", "<|startoftext|>", "<|endoftext|>"]
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces += [*letters, *(f"{letter}</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
