"""A model over a few frames of noise, small enough to train a step in a test."""

from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.scene_box import SceneBox

from semfield_ns.labelling.evidence import CarriedLabels, Evidence
from semfield_ns.method_configs.semantic_flow import semantic_flow, semantic_flow_paper, semantic_flow_tiny
from semfield_ns.scenes.labels import LabelMap, SemanticClass

FRAMES, HEIGHT, WIDTH = 5, 12, 16
CLASSES = LabelMap(
    (
        SemanticClass("wall", (90, 90, 90), False),
        SemanticClass("ball", (200, 30, 30), True),
        SemanticClass("box", (30, 30, 200), True),
    )
)


def make_cameras() -> Cameras:
    """Five cameras side by side that look along -z, times 0 to 1."""
    poses = torch.eye(4)[None, :3].repeat(FRAMES, 1, 1)
    poses[:, 0, 3] = torch.linspace(-0.4, 0.4, FRAMES)
    return Cameras(
        camera_to_worlds=poses,
        fx=14.0,
        fy=14.0,
        cx=WIDTH / 2,
        cy=HEIGHT / 2,
        width=WIDTH,
        height=HEIGHT,
        camera_type=CameraType.PERSPECTIVE,
        times=torch.linspace(0, 1, FRAMES)[:, None],
    )


def make_model(preset=semantic_flow_tiny, **changes):
    """The model of a preset, shrunk, in training mode."""
    config = deepcopy(preset.config.pipeline.model)
    if preset is semantic_flow_paper:
        config.static_width, config.static_blocks, config.num_samples, config.num_flow_samples = 32, 4, 8, 8
    if preset is semantic_flow:
        config.static_encoding.hash_size, config.static_encoding.hash_levels = 8, 2
        config.static_encoding.resolutions = (4, 16)
        config.dynamic_encoding.resolutions = (8, 16)
        config.num_samples, config.num_proposal_samples, config.num_flow_samples = 8, (8, 8), 4
    for key, value in changes.items():
        setattr(config, key, value)
    torch.manual_seed(0)
    box = SceneBox(aabb=torch.tensor([[-1.0] * 3, [1.0] * 3]))
    model = config.setup(scene_box=box, num_train_data=FRAMES, metadata=make_metadata(), device="cpu", grad_scaler=None)
    return model.train()


def make_metadata() -> dict:
    """What the data manager tells a model of a scene."""
    return {
        "label_map": CLASSES,
        "depth_kind": "metric",
        "cameras": make_cameras(),
        "near": 1.0,
        "world": np.eye(3, 4),
        "far": 20.0,
        "source_features": torch.randn(FRAMES, HEIGHT // 2, WIDTH // 2, 7).half(),
        "source_colors": torch.rand(FRAMES, HEIGHT, WIDTH, 3).half(),
        "source_moving": None,
        "source_evidence": cache(make_evidence),
    }


def make_evidence() -> Evidence:
    """Carried labels and a classifier, both at random."""
    carried = CarriedLabels(
        torch.randint(3, (FRAMES, 2, HEIGHT, WIDTH)).byte(), 5 * torch.rand(FRAMES, 2, HEIGHT, WIDTH).half()
    )
    return Evidence(torch.randn(FRAMES, HEIGHT // 2, WIDTH // 2, len(CLASSES)).half(), carried)


def make_batch(rays: int = 96, seed: int = 0) -> tuple:
    """A ray bundle with targets of every kind, half of the rays dynamic."""
    generator = torch.Generator().manual_seed(seed)
    camera = torch.randint(FRAMES, (rays,), generator=generator)
    row = torch.randint(HEIGHT, (rays,), generator=generator)
    column = torch.randint(WIDTH, (rays,), generator=generator)
    cameras = make_cameras()
    bundle = cameras.generate_rays(
        camera_indices=camera[:, None], coords=torch.stack([row + 0.5, column + 0.5], dim=-1)
    )

    def flow() -> torch.Tensor:
        return torch.cat([torch.randn(rays, 2, generator=generator), torch.ones(rays, 1)], dim=-1)

    batch = {
        "image": torch.rand(rays, 3, generator=generator),
        "indices": torch.stack([camera, row, column], dim=-1),
        "dynamic_mask": (torch.arange(rays) % 2)[:, None].float(),
        "depth": 2 + 3 * torch.rand(rays, 1, generator=generator),
        "semantics": torch.randint(-1, 3, (rays, 1), generator=generator),
        "propagated_label": torch.stack(
            [torch.randint(3, (rays,), generator=generator).float(), torch.rand(rays, generator=generator)], dim=-1
        ),
        "flow_forward": flow(),
        "flow_backward": flow(),
    }
    return bundle, batch


@pytest.fixture(params=[semantic_flow, semantic_flow_paper, semantic_flow_tiny], ids=lambda p: p.config.method_name)
def preset(request):
    """Each of the presets."""
    return request.param
