"""Gaussians that begin with what a trained field knows."""

from pathlib import Path

import pytest
import torch

from semfield_ns.errors import SemfieldError
from semfield_ns.semantic_flow_splat.baking import open_field, seen_by
from semfield_ns.semantic_flow_splat.datamanager import start_of
from semfield_ns.semantic_flow_splat.video import read_frame


class Field:
    """Renders the truth of a data set, as a field would that has learned it."""

    def __init__(self, dataset) -> None:
        self.dataset = dataset

    def time_cameras(self, scale: float = 1.0):
        return [self.dataset.cameras[index : index + 1] for index in range(len(self.dataset))]

    def _of(self, camera):
        times = self.dataset.cameras.times[:, 0]
        return self.dataset[int((times - float(camera.times)).abs().argmin())]

    def unedited_outputs(self, camera):
        item = self._of(camera)
        along = camera.generate_rays(camera_indices=0, keep_shape=True).metadata["directions_norm"]
        return {"depth": item["depth"] * along, "dynamic_weight": item["dynamic_mask"].float()}

    def induced_flow(self, camera, step: int):
        flow = self._of(camera).get("flow_forward" if step > 0 else "flow_backward")
        return None if flow is None else flow[..., :2]


def test_frames_get_the_depth_the_motion_and_the_flow_of_the_field(manager):
    dataset = manager.train_dataset
    frames = [read_frame(dataset, index, index) for index in range(len(dataset))]
    for given, found in zip(frames, seen_by(Field(dataset), frames), strict=True):
        assert torch.allclose(found.depth, given.depth, rtol=1e-4)
        assert torch.equal(found.moving, given.moving)
        assert found.forward is None or torch.equal(found.forward[..., :2], given.forward[..., :2])


def test_a_field_of_another_scene_is_refused(manager):
    dataset = manager.train_dataset
    frame = read_frame(dataset, 1, 0)
    with pytest.raises(SemfieldError, match="is of another scene"):
        seen_by(Field(dataset), [frame])


@pytest.mark.slow
def test_a_run_is_opened_and_gives_a_start(trained_run: Path, manager):
    found = start_of(manager.train_dataset, 0.5, 20.0, 2000, trained_run)
    assert 0 < len(found.colors) <= 2000 and len(found.still) > 0


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path):
    with pytest.raises(SemfieldError, match="does not exist: give the folder of a trained run"):
        open_field(tmp_path / "config.yml")
