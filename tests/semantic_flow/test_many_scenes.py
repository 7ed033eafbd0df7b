"""Several scenes in one model, and a model that is adapted to another scene."""

import json

import pytest
import torch
import yaml

from semfield_ns.errors import SemfieldError
from semfield_ns.labelling.evidence import Evidence
from semfield_ns.method_configs.semantic_flow import semantic_flow_paper, semantic_flow_tiny
from semfield_ns.pipeline import INFO_KEY, encode_info
from semfield_ns.scenes.labels import LabelMap, SemanticClass
from semfield_ns.scenes.synthetic import write_scene
from semfield_ns.semantic_flow.many_scenes.adaptation import for_adaptation, resampled, transfer
from semfield_ns.semantic_flow.many_scenes.model import ManyScenesModel, share
from semfield_ns.semantic_flow.pipeline import decode_classes, encode_classes, member_state
from semfield_ns.viewer.link import ViewerLink
from semfield_ns.viewer.scene_panel import ScenePanel
from tests.runs import run_command
from tests.semantic_flow.conftest import CLASSES, make_batch, make_metadata, make_model


def make_many(preset=semantic_flow_tiny, **changes) -> ManyScenesModel:
    """Two scenes of noise."""
    single = make_model(preset, **changes)
    torch.manual_seed(1)
    scenes = {"a": make_metadata(), "b": make_metadata()}
    model = single.config.setup(scene_box=single.scene_box, num_train_data=5, metadata={"scenes": scenes}, device="cpu")
    return model.train()


@pytest.mark.parametrize("shared", ["semantics", "networks"])
@pytest.mark.parametrize("preset", [semantic_flow_tiny, semantic_flow_paper], ids=lambda p: p.config.method_name)
def test_scenes_share_networks_and_keep_their_geometry(preset, shared):
    model = make_many(preset, shared=shared)
    a, b = model.models
    assert a.heads is b.heads
    assert (a.branches.static.trunk is b.branches.static.trunk) == (shared == "networks")
    assert a.branches.flow.latents is not b.branches.flow.latents
    assert a.branches.static.warp is not b.branches.static.warp
    own = {id(p) for p in a.branches.static.encoding.parameters()}
    assert not own & {id(p) for p in b.branches.static.encoding.parameters()}
    grouped = [p for group in model.get_param_groups().values() for p in group]
    assert len(grouped) == len({id(p) for p in grouped})
    learned = {id(p) for name, p in model.named_parameters() if "device_indicator" not in name}
    assert {id(p) for p in grouped} == learned


def test_a_batch_of_two_scenes_trains_both_and_what_they_share():
    model = make_many(stage_one_steps=0, warp_directions="both")
    model.set_step(3)
    first, second = make_batch(seed=0), make_batch(seed=1)
    outputs = model([(0, first[0]), (1, second[0])])
    values = model.get_loss_dict(outputs, {0: first[1], 1: second[1]})
    sum(values.values()).backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None and "device_indicator" not in n]
    assert not missing
    assert torch.isfinite(model.get_metrics_dict(outputs, {0: first[1], 1: second[1]})["psnr"])


def test_one_scene_of_a_checkpoint_is_that_scene_alone():
    many, single = make_many(), make_model()
    state = {f"_model.{key}": value for key, value in many.state_dict().items()}
    state[INFO_KEY] = encode_info(many.checkpoint_info())
    own = member_state(state, "b")
    assert {key for key in own if key != INFO_KEY} == {f"_model.{key}" for key in single.state_dict()}
    assert torch.equal(own["_model.branches.flow.latents.weight"], many.models[1].branches.flow.latents.weight)
    assert own[INFO_KEY].tolist() == encode_info(single.checkpoint_info()).tolist()
    with pytest.raises(SemfieldError, match="its scenes are a, b"):
        member_state(state, "c")


def test_the_scene_of_a_camera_is_rendered():
    model = make_many().eval()
    metadata = model.models[0].kwargs["metadata"]
    camera = metadata["cameras"][2:3]
    shown = [model.get_outputs_for_camera(camera)["rgb"]]
    for scene in (0, 1):
        camera.metadata = {"scene": torch.tensor([[scene]])}
        shown.append(model.get_outputs_for_camera(camera)["rgb"])
    assert torch.equal(shown[0], shown[1]) and not torch.equal(shown[1], shown[2])
    camera.metadata = None
    changes = []
    panel = ScenePanel(model, ViewerLink(), lambda: changes.append(model.shown))
    assert panel.scene.options == ("a", "b")
    panel.scene.changed(None, "b")
    assert changes == [1]
    assert torch.equal(model.get_outputs_for_camera(camera)["rgb"], shown[2])


def test_classes_survive_a_checkpoint_in_order():
    assert decode_classes({"_semfield_classes": encode_classes(CLASSES.classes)}) == CLASSES.classes
    assert decode_classes({}) == ()


def test_transfer_matches_classes_by_name():
    source = make_model()
    state = {f"_model.{key}": value for key, value in source.state_dict().items()}
    target = make_model(latent_dim=4)
    target.label_map = LabelMap((SemanticClass("box", (0, 0, 9), True), SemanticClass("tree", (0, 9, 0))))
    from semfield_ns.semantic_flow.flow_attention.heads import SemanticHeads

    config = target.config
    dims = target.frames.feature_dim, target.branches.static.out_dim, target.branches.dynamic.out_dim
    target.heads = SemanticHeads("flow", 2, *dims, config.token_dim, config.attention_heads)
    before = target.heads.static.layers[4].weight.detach().clone()
    report = transfer(target, state, CLASSES.names)
    after = target.heads.static.layers[4].weight
    assert torch.equal(after[0], source.heads.static.layers[4].weight[2]), "box was the third class"
    assert torch.equal(after[1], before[1]), "nobody knows trees"
    assert report.classes == ["box"] and report.new_classes == ["tree"]
    assert torch.equal(target.branches.dynamic.trunk.first.weight, source.branches.dynamic.trunk.first.weight)
    assert report.taken + report.fresh == sum(p.numel() for p in target.parameters())
    assert "tree" in report.sentence()


def test_a_checkpoint_of_other_settings_is_refused():
    state = {f"_model.{key}": value for key, value in make_model(token_dim=16).state_dict().items()}
    with pytest.raises(SemfieldError, match="cannot be adapted"):
        transfer(make_model(), state, CLASSES.names)


def test_heads_that_correct_evidence_are_adapted_with_evidence_only():
    source = make_model(evidence=True)
    assert source.checkpoint_info()["evidence"] == "corrected" and "evidence" not in make_model().checkpoint_info()
    state = {f"_model.{key}": value for key, value in source.state_dict().items()}
    state[INFO_KEY] = encode_info(source.checkpoint_info())
    assert transfer(make_model(evidence=True), state, CLASSES.names).classes
    with pytest.raises(SemfieldError, match="evidence True"):
        transfer(make_model(), state, CLASSES.names)
    unlabelled = make_model(evidence=True)
    unlabelled.frames.has_classifier = False
    with pytest.raises(SemfieldError, match="label a frame"):
        transfer(unlabelled, state, CLASSES.names)


def test_a_scene_without_labels_is_not_held_to_evidence_that_it_does_not_have():
    model = make_model(evidence=True, stage_one_steps=0)
    metadata = model.kwargs["metadata"] | {"source_evidence": Evidence}
    bare = model.config.setup(scene_box=model.scene_box, num_train_data=5, metadata=metadata, device="cpu").train()
    bundle, batch = make_batch()
    values = bare.get_loss_dict(bare(bare.collider(bundle)), batch)
    assert "semantics_evidence" not in values and all(bool(torch.isfinite(value)) for value in values.values())


def test_share_takes_the_first_models_modules():
    models = [make_model(), make_model()]
    share(models, "networks")
    assert models[1].branches.dynamic.color is models[0].branches.dynamic.color
    assert models[1].proposals[0].layers is models[0].proposals[0].layers


def test_an_adaptation_trains_both_branches_from_the_first_step_at_full_rates():
    from copy import deepcopy

    config = deepcopy(semantic_flow_paper.config)
    length, scheduled = config.max_num_iterations, deepcopy(config.optimizers)
    for_adaptation(config, length // 10, length)
    model = config.pipeline.model
    assert model.stage_one_steps == 0 and not model.freeze_static
    assert config.optimizers == scheduled


def test_planes_of_a_new_scene_start_at_the_mean_of_the_known_ones():
    """Also where the videos have other lengths; what is equal in all scenes stays as it is."""
    many, target = make_many(), make_model()
    state = {f"_model.{key}": value for key, value in many.state_dict().items()}
    transfer(target, state, CLASSES.names)
    first, second, mean = (
        dict(model.named_parameters())["branches.dynamic.encoding.levels.0.plane_coefs.2"]
        for model in (*many.models, target)
    )
    expected = [resampled(plane.detach(), mean.shape[1:]) for plane in (first, second)]
    assert torch.allclose(mean, (expected[0] + expected[1]) / 2, atol=1e-6)
    ramp = torch.arange(3.0).expand(2, 4, 3)
    assert torch.allclose(resampled(ramp, (2, 5)), torch.arange(0, 2.1, 0.5).expand(2, 2, 5))


@pytest.fixture(scope="module")
def many_run(tmp_path_factory):
    """A short run over two scenes of different size and length, whose class lists differ."""
    folder = tmp_path_factory.mktemp("many")
    write_scene("demo", folder / "scenes" / "one", num_frames=5, width=40, height=32, samples_per_axis=1)
    write_scene("thin", folder / "scenes" / "two", num_frames=6, width=48, height=32, samples_per_axis=1)
    run_command(
        [
            *("ns-train", "semantic-flow-tiny", "--data", str(folder / "scenes"), "--vis", "tensorboard"),
            *("--output-dir", str(folder), "--experiment-name", "many", "--timestamp", "run"),
            *("--max-num-iterations", "6", "--pipeline.model.stage-one-steps", "3"),
            *("--steps-per-eval-batch", "3", "--steps-per-eval-image", "5"),
        ]
    )
    return folder / "many" / "semantic-flow-tiny" / "run"


@pytest.mark.slow
def test_commands_open_all_scenes_or_one(many_run, tmp_path):
    results = {}
    for name in ("config", "scenes/two"):
        output = tmp_path / f"{name.replace('/', '_')}.json"
        run_command(["ns-eval", "--load-config", str(many_run / f"{name}.yml"), "--output-path", str(output)])
        results[name] = json.loads(output.read_text())["results"]
    for key in ("psnr", "miou_image"):
        assert results["scenes/two"][key] == pytest.approx(results["config"][f"{key}_two"], abs=1e-4)
    assert results["scenes/two"]["miou"] == pytest.approx(results["config"]["miou_two"], abs=1e-6)
    path = tmp_path / "path.json"
    config = str(many_run / "scenes" / "two.yml")
    run_command(["semfield", "camera-path", "--load-config", config, "--output", str(path), "--seconds", "0.2"])
    assert json.loads(path.read_text())["render_width"] == 48


@pytest.mark.slow
def test_a_checkpoint_meets_another_scene_without_labels(many_run, tmp_path):
    scene = write_scene("demo-b", tmp_path / "new", num_frames=4, width=40, height=32, samples_per_axis=1)
    transforms = json.loads((scene / "transforms.json").read_text())
    del transforms["semantics"]
    for frame in transforms["frames"]:
        frame.pop("semantic_path", None), frame.pop("instance_path", None)
    (scene / "transforms.json").write_text(json.dumps(transforms))
    checkpoint = next((many_run / "nerfstudio_models").glob("*.ckpt"))
    result = run_command(
        [
            *("ns-train", "semantic-flow-tiny", "--data", str(scene), "--load-checkpoint", str(checkpoint)),
            *("--vis", "tensorboard", "--output-dir", str(tmp_path), "--experiment-name", "new", "--timestamp", "run"),
            *("--max-num-iterations", "0"),
        ]
    )
    said = " ".join(result.stdout.split())
    assert "Taken from the checkpoint" in said and "rod" in said
    run = tmp_path / "new" / "semantic-flow-tiny" / "run"
    config = yaml.load((run / "config.yml").read_text(), Loader=yaml.Loader)
    assert [entry.name for entry in config.pipeline.datamanager.dataparser.classes][-1] == "rod"
    saved = torch.load(run / "nerfstudio_models" / "step-000000000.ckpt")["pipeline"]
    source = torch.load(checkpoint)["pipeline"]
    key = "heads.attention.embed.weight"
    assert torch.equal(saved[f"_model.{key}"], source[f"_model.scenes.0.{key}"])
