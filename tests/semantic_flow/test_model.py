"""The model as a whole: gradients, losses, stages, outputs."""

import copy

import pytest
import torch
from nerfstudio.utils.colormaps import ColormapOptions, apply_colormap

from semfield_ns.method_configs.semantic_flow import semantic_flow, semantic_flow_paper, semantic_flow_tiny
from semfield_ns.rendering.projection import gather_bilinear
from semfield_ns.scenes.labels import IGNORE
from semfield_ns.semantic_flow import losses
from semfield_ns.semantic_flow.fields.blending import all_weights, alpha, blend, single_weights
from semfield_ns.semantic_flow.fields.radiance import concatenate
from semfield_ns.semantic_flow.flow_attention.tracing import trace_neighbours
from tests.semantic_flow.conftest import make_batch, make_cameras, make_model

CONTRACT = {
    "rgb", "depth", "accumulation", "semantics_colormap", "semantics_confidence", "flow_forward", "flow_backward",
    "dynamic_weight", "rgb_static", "rgb_dynamic", "features_pca",
}  # fmt: skip


def train_step(model, optimizer, step: int, batch_seed: int = 0) -> dict[str, torch.Tensor]:
    bundle, batch = make_batch(seed=batch_seed)
    model.set_step(step)
    optimizer.zero_grad()
    values = model.get_loss_dict(model(bundle), batch)
    sum(values.values()).backward()
    optimizer.step()
    return values


def test_every_parameter_gets_a_gradient_and_changes(preset):
    """Attention, scene codes and both flow directions included: none is forgotten by the losses or the optimisers."""
    model = make_model(preset, stage_one_steps=1, freeze_static=False, warp_directions="both")
    grouped = [p for group in model.get_param_groups().values() for p in group]
    named = {name: p for name, p in model.named_parameters() if name != "device_indicator_param"}
    assert {id(p) for p in grouped} == {id(p) for p in named.values()}
    before = {name: p.detach().clone() for name, p in named.items()}
    optimizer = torch.optim.Adam(grouped, lr=1e-2)
    seen = set()
    for step in range(4):
        train_step(model, optimizer, step, step)
        seen |= {name for name, p in named.items() if p.grad is not None and bool((p.grad != 0).any())}
    assert seen == set(named), f"no gradient: {sorted(set(named) - seen)}"
    unchanged = [name for name, p in named.items() if torch.equal(p, before[name])]
    assert not unchanged


def test_stages(preset):
    model = make_model(preset, stage_one_steps=2, freeze_static=True)
    assert model.dynamic_fraction(1) == 0.0 and model.dynamic_fraction(2) == 0.5
    optimizer = torch.optim.Adam([p for g in model.get_param_groups().values() for p in g], lr=1e-2)
    dynamic = copy.deepcopy(list(model.branches.dynamic.parameters()))
    train_step(model, optimizer, 0)
    assert all(torch.equal(a, b) for a, b in zip(dynamic, model.branches.dynamic.parameters(), strict=True))
    static = copy.deepcopy(list(model.branches.static.parameters()))
    train_step(model, optimizer, 2)
    assert all(torch.equal(a, b) for a, b in zip(static, model.branches.static.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(dynamic, model.branches.dynamic.parameters(), strict=True))


@pytest.mark.parametrize("evidence", [False, True])
def test_every_loss_of_the_config_is_computed(evidence):
    model = make_model(stage_one_steps=0, warp_directions="both", evidence=evidence)
    model.set_step(1)
    bundle, batch = make_batch()
    values = model.get_loss_dict(model(bundle), batch)
    without = "semantics_propagated" if evidence else "semantics_evidence"
    assert set(values) == set(losses.LossWeights.__dataclass_fields__) - {without}
    assert all(torch.isfinite(v) for v in values.values())


@pytest.mark.parametrize(
    "missing", ["flow_forward flow_backward", "depth", "dynamic_mask", "semantics propagated_label"]
)
@pytest.mark.parametrize("step", [0, 5])
def test_missing_inputs_switch_losses_off(missing, step):
    model = make_model(stage_one_steps=3)
    model.set_step(step)
    bundle, batch = make_batch()
    for key in missing.split():
        batch.pop(key)
    values = model.get_loss_dict(model(bundle), batch)
    assert "rgb" in values and all(torch.isfinite(v) for v in values.values())


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_batch_without_dynamic_or_static_rays(value):
    model = make_model(stage_one_steps=0)
    model.set_step(1)
    bundle, batch = make_batch()
    batch["dynamic_mask"] = torch.full_like(batch["dynamic_mask"], value)
    values = model.get_loss_dict(model(bundle), batch)
    sum(values.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_losses_do_not_change_the_batch_and_repeat():
    model = make_model(stage_one_steps=0, warp_directions="both").eval()
    model.set_step(1)
    model.train()
    bundle, batch = make_batch()
    kept = {key: value.clone() for key, value in batch.items()}
    torch.manual_seed(3)
    first = model.get_loss_dict(model(bundle), batch)
    assert all(torch.equal(batch[key], kept[key]) for key in kept)
    torch.manual_seed(3)
    second = model.get_loss_dict(model(bundle), batch)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_depth_losses_vanish_for_perfect_depth():
    depth = 2 + torch.rand(40, 1)
    mask = torch.ones_like(depth, dtype=torch.bool)
    distance = torch.stack([0.5 * depth, depth, 1.5 * depth], dim=1)
    renders = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 0.0, 0.0]])  # at the surface, around it, nothing
    perfect, spread, empty = losses.surface_depth(renders.T.expand(40, 3, 3), distance, depth).unbind(dim=-1)
    assert perfect.max() < 1e-6 and spread.min() > 0.3 and bool((empty == 1).all())
    given = 1 / depth
    frame = torch.zeros(40, dtype=torch.long)
    assert losses.normalised_disparity(3 * given + 0.7, given, frame, mask) < 1e-6
    assert losses.normalised_disparity(-given, given, frame, mask) > 0.5, "inverted depth must cost"


def test_disparity_is_compared_however_few_rays_a_frame_has():
    """On a long video a batch has a few rays of each of many frames; then neighbouring frames are taken together."""
    given = 0.2 + torch.rand(300, 1, generator=torch.Generator().manual_seed(0))
    frame, everywhere = torch.arange(300) // 3, torch.ones(300, 1, dtype=torch.bool)
    assert losses.normalised_disparity(3 * given + 0.7, given, frame, everywhere) < 1e-6
    assert losses.normalised_disparity(-given, given, frame, everywhere) > 0.5, "inverted depth must cost"
    few = everywhere & (torch.arange(300) < 11)[:, None]
    assert losses.normalised_disparity(-given, given, frame, few) == 0, "too few rays for a median and a deviation"
    # Frames with enough rays are compared on their own: each has its own scale.
    large = torch.arange(300) // 100
    assert losses.normalised_disparity((1.0 + large)[:, None] * given, given, large, everywhere) < 1e-6


def test_hand_computed_losses():
    flow = torch.tensor([[[1.0, -1.0, 0.0]], [[0.0, 0.0, 3.0]]])
    assert losses.RayMean(flow.abs(), torch.tensor([1.0, 0.0])).mean().item() == pytest.approx(2 / 3)
    assert losses.RayMean(flow.abs(), torch.tensor([[True], [True]]), 0.5).mean().item() == pytest.approx(5 / 12)
    assert losses.RayMean(flow, torch.zeros(2)).mean().item() == 0
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0], [9.0, 0.0]])
    labels = torch.tensor([0, IGNORE, 1])
    first, wrong = losses.cross_entropies(
        [logits, logits], labels, [torch.tensor([1.0, 1, 0]), torch.tensor([0.0, 1, 1])]
    )
    assert first.mean().item() == pytest.approx(0.6931, abs=1e-4)
    assert wrong.mean().item() == pytest.approx(9.0001, abs=1e-4)
    (none,) = losses.cross_entropies([logits], torch.full((3,), IGNORE), [torch.ones(3)])
    assert none.mean() == 0


def test_losses_are_weighted_and_added_up_all_at_once():
    few = losses.RayMean(torch.tensor([2.0, 4.0]), torch.tensor([True, False]), factor=3)
    many = losses.RayMean(torch.tensor([[1.0, 3.0], [0.0, 0.0], [5.0, 7.0]]), torch.tensor([True, False, True]))
    parts = {"rgb": [many], "depth": [few, torch.tensor(10.0), many], "mask": [few]}
    found = losses.weighted(parts, {"rgb": 2.0, "depth": 0.5, "mask": 0.0})
    assert {name: value.item() for name, value in found.items()} == pytest.approx({"rgb": 8.0, "depth": 10.0})


def test_blended_weights_match_the_formula():
    torch.manual_seed(0)
    a_s, a_d, b = (torch.rand(4, 6, 1) for _ in range(3))
    weights = blend(a_s, a_d, b)
    for ray in range(4):
        transmittance = 1.0
        for i in range(6):
            s, d, m = (float(v[ray, i]) for v in (a_s, a_d, b))
            assert weights.dynamic[ray, i].item() == pytest.approx(transmittance * d * m, abs=1e-5)
            assert weights.static[ray, i].item() == pytest.approx(transmittance * s * (1 - m), abs=1e-5)
            transmittance *= (1 - d * m) * (1 - s * (1 - m))
    assert torch.allclose(blend(a_s, a_d, torch.zeros_like(b)).total, single_weights(a_s), atol=1e-6)
    assert torch.allclose(blend(a_s, a_d, torch.ones_like(b)).total, single_weights(a_d), atol=1e-6)
    density, deltas = torch.rand(4, 6, 1, dtype=torch.double, requires_grad=True), torch.rand(4, 6, 1).double()
    assert torch.allclose(alpha(density, deltas), 1 - torch.exp(-density * deltas))
    assert torch.autograd.gradcheck(lambda value: alpha(value, deltas), density)
    blended, static, dynamic = all_weights(a_s, a_d, b)
    assert torch.allclose(blended.static, weights.static) and torch.allclose(blended.dynamic, weights.dynamic)
    assert torch.allclose(static, single_weights(a_s)) and torch.allclose(dynamic, single_weights(a_d))


def test_keeping_all_samples_is_exact(preset):
    """The semantic path on the top samples is an approximation that is exact when every sample is kept."""
    model = make_model(preset, stage_one_steps=0).eval()
    bundle, _ = make_batch(rays=8)
    with torch.no_grad():
        model.config.num_flow_samples = model.config.num_samples
        radiance, *_ = model.radiance(model.collider(bundle), with_dynamic=True)
        few = radiance.top(radiance.points.shape[1] - 1)
        importance, kept = (part.weights.total + part.dynamic_weights for part in (radiance, few))
    assert torch.allclose(importance.sum(dim=1) - kept.sum(dim=1), importance.amin(dim=1), atol=1e-5)
    assert radiance.top(radiance.points.shape[1]) is radiance
    assert (few.distance.diff(dim=1) > 0).all()


def test_one_layer_of_an_edited_scene_is_the_scene(preset):
    model = make_model(preset, stage_one_steps=0).eval()
    bundle, _ = make_batch(rays=8)
    with torch.no_grad():
        radiance, *_ = model.radiance(model.collider(bundle), with_dynamic=True)
        merged = concatenate([radiance])
    for name in ("distance", "static_weights", "dynamic_weights"):
        assert torch.equal(getattr(merged, name), getattr(radiance, name)), name
    assert torch.equal(merged.weights.total, radiance.weights.total)


def test_scene_flow_is_per_frame_at_any_time():
    """Constant velocity: the neighbouring frame is nearer or further between frames, the velocity is the same."""
    model = make_model().eval()
    velocity = torch.tensor([0.1, -0.05, 0.02])
    with torch.no_grad():
        model.branches.flow.velocity_head.weight.zero_()
        model.branches.flow.velocity_head.bias.copy_(torch.atanh(velocity / model.config.max_velocity))
        model.branches.dynamic.blending_head.bias.fill_(30.0)  # everything is dynamic
    for frame in (1.0, 1.3, 1.49, 1.51, 2.0):
        camera = make_cameras()[2:3]
        camera.times = torch.tensor([[frame / 4]])
        raw = model.raw_outputs_for_camera(camera)
        for name, sign in (("forward", 1), ("backward", -1)):
            weight = raw["dynamic_weight"].clamp(min=1e-4)
            assert torch.allclose(raw[f"scene_flow_{name}"] / weight, (sign * velocity).expand(12, 16, 3), atol=2e-2)
    camera.times = torch.tensor([[0.0]])
    assert (model.raw_outputs_for_camera(camera)["scene_flow_backward"] == 0).all(), "no frame before the first"


@pytest.mark.parametrize("time", [0.0, 0.5, 0.37, 1.0, None])
def test_outputs_of_the_contract(preset, time):
    model = make_model(preset).eval()
    camera = make_cameras()[2:3]
    camera.times = None if time is None else torch.tensor([[time]])
    outputs = model.get_outputs_for_camera(camera)
    assert set(outputs) >= CONTRACT
    for name, value in outputs.items():
        assert value.dtype == torch.float32 and value.shape[:2] == (12, 16) and value.shape[2] in (1, 3), name
        assert torch.isfinite(value).all(), name
        if value.shape[2] == 3:
            assert value.min() >= 0 and value.max() <= 1, name
        assert apply_colormap(value, ColormapOptions(normalize=True)).shape == (12, 16, 3)


def test_outputs_without_a_camera_for_point_clouds():
    model = make_model().eval()
    bundle, _ = make_batch()
    outputs = model(bundle)
    assert {"rgb", "depth", "accumulation", "semantics_colormap"} <= set(outputs)
    assert outputs["semantics_colormap"].shape == (96, 3)


def test_losses_of_evaluation_rays():
    model = make_model().eval()
    bundle, batch = make_batch()
    values = model.get_loss_dict(model(bundle), batch)
    assert set(values) == {"rgb"} and torch.isfinite(values["rgb"])


def test_point_head_ignores_the_images():
    model = make_model(semantic_head="point").eval()
    raw = model.raw_outputs_for_camera(make_cameras()[2:3])["logits"]
    model.frames.features.normal_()
    assert torch.equal(raw, model.raw_outputs_for_camera(make_cameras()[2:3])["logits"])
    flow = make_model(semantic_head="flow").eval()
    raw = flow.raw_outputs_for_camera(make_cameras()[2:3])["logits"]
    flow.frames.features.normal_()
    assert not torch.equal(raw, flow.raw_outputs_for_camera(make_cameras()[2:3])["logits"])


def test_semantic_gradient_switch():
    for on in (True, False):
        model = make_model(stage_one_steps=0, semantic_gradient=on)
        model.set_step(1)
        bundle, batch = make_batch()
        values = model.get_loss_dict(model(bundle), batch)
        values["semantics"].backward()
        touched = model.branches.static.density.layer.weight.grad
        assert (touched is not None and bool((touched != 0).any())) is on


def test_training_learns_and_repeats_bit_for_bit():
    def run() -> list[float]:
        model = make_model(stage_one_steps=0)
        optimizer = torch.optim.Adam([p for g in model.get_param_groups().values() for p in g], lr=1e-2)
        torch.manual_seed(7)
        return [float(sum(train_step(model, optimizer, step).values()).detach()) for step in range(20)]

    first = run()
    assert first[-1] < 0.85 * first[0]
    assert first == run()


def test_presets_share_their_classes():
    kinds = {type(p.config.pipeline.model) for p in (semantic_flow, semantic_flow_paper, semantic_flow_tiny)}
    assert len(kinds) == 1
    assert semantic_flow_paper.config.pipeline.model.static_blocks == 5
    paper = make_model(semantic_flow_paper)
    assert paper.branches.static.encoding.out_dim == 63 and paper.branches.flow.encoding.out_dim == 84


def test_evidence_is_what_the_pixel_under_the_point_tells():
    """What the classifier says of it, and the labels carried to it; nothing outside the picture."""
    model = make_model(evidence=True)
    frames, cameras = model.frames, make_cameras()
    row, column, step = torch.tensor([3, 7]), torch.tensor([5, 11]), torch.tensor([2, 4])
    rays = cameras.generate_rays(camera_indices=step[:, None], coords=torch.stack([row, column], dim=-1) + 0.5)
    points = rays.origins + 4.0 * rays.directions
    said = model.kwargs["metadata"]["source_evidence"]().logits
    where = torch.stack([column, row], dim=-1) / 2 - 0.25  # in cells of two pixels, of a pixel's centre
    expected = gather_bilinear(said, step, where)
    for i in range(2):
        for side in range(2):
            label = int(frames.carried_labels[step[i], side, row[i], column[i]])
            expected[i, label] += frames.carried_log_ratio[step[i], side, row[i], column[i]].float()
    assert torch.allclose(frames.evidence(points, step), expected)
    assert (frames.evidence(points + 100.0, step) == 0).all()


def test_heads_with_evidence_begin_by_saying_nothing_else():
    model = make_model(evidence=True)
    torch.manual_seed(0)
    points, step = torch.tensor([[[0.1, 0.2, -4.0]]]), torch.tensor([2])
    field = torch.randn(1, 1, model.branches.static.out_dim)
    said = model.heads.static_logits(points, step, field, model.frames)
    assert torch.equal(said, model.frames.evidence(points, step[:, None]))
    trajectory = trace_neighbours(points, torch.tensor([[2.0]]), model.branches.flow.velocity, len(model.frames))
    field = torch.randn(1, 1, model.branches.dynamic.out_dim)
    assert torch.equal(model.heads.dynamic_logits(trajectory, field, model.frames), said)


def test_corrections_of_evidence_are_held_where_there_is_no_label():
    """In both stages: zero as long as nothing is corrected, more with corrections, nothing on labelled rays."""
    bundle, batch = make_batch()
    labelled = batch | {"semantics": batch["semantics"].clamp(min=0)}
    for stage_one in (0, 5):
        model = make_model(stage_one_steps=stage_one, evidence=True)
        model.set_step(1)
        bundle = model.collider(bundle)
        held = [model.get_loss_dict(model(bundle), batch)["semantics_evidence"]]
        with torch.no_grad():
            for network in (model.heads.static, model.heads.dynamic):
                network.layers[-1].bias[0] += 3.0
        held += [model.get_loss_dict(model(bundle), given)["semantics_evidence"] for given in (batch, labelled)]
        before, corrected, on_labels = (value.item() for value in held)
        assert before == pytest.approx(0.0, abs=1e-4) and corrected > 0.01 and on_labels == 0
