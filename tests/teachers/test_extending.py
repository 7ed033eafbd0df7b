"""The teacher of docs/extending.md, taken from the page and run as the page says."""

import re
import sys
from pathlib import Path

import pytest
import torch

from semfield_ns.teachers.registry import build_teacher, teacher_dim
from tests.gsn.builders import small_pipeline, write_scenes

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.fixture
def blocks(tmp_path, monkeypatch):
    """The Python of the page's section on teachers; the first block is importable as `my_teachers`."""
    section = PAGE.read_text().split("## A method")[0]
    found = re.findall(r"```python\n(.*?)```", section, re.S)
    (tmp_path / "my_teachers.py").write_text(found[0])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SEMFIELD_CACHE", str(tmp_path / "cache"))
    yield found
    sys.modules.pop("my_teachers", None)


def test_the_teacher_of_the_page_is_one(blocks):
    teacher = build_teacher("my_teachers:PatchTeacher")
    assert teacher_dim("my_teachers:PatchTeacher") == 12
    images = torch.rand(2, 5, 8, 3)
    features = teacher.encode(images)
    assert features.shape == (2, *teacher.grid_size(5, 8), 12) == (2, 3, 4, 12)
    assert torch.allclose(teacher.encode(torch.rand(1, 4, 4, 3) * 0 + 0.25), torch.full((1, 2, 2, 12), 0.25))


def test_the_page_describes_a_folder_of_images(blocks, tmp_path, monkeypatch):
    write_scenes(tmp_path / "scenes", 1)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "demo").symlink_to(tmp_path / "scenes" / "scene_0")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(blocks[1], str(PAGE), "exec"), names)
    assert names["features"].shape[1:] == (18, 24, 8) and names["features"].dtype == torch.float16


def test_gsn_distils_the_teacher_of_the_page(blocks, tmp_path):
    pipeline = small_pipeline(write_scenes(tmp_path / "scenes", 1), teacher="my_teachers:PatchTeacher")
    pipeline.model.train()
    pipeline.model.set_step(4)
    _, losses, _ = pipeline.get_train_loss_dict(4)
    assert torch.isfinite(losses["features"])
    assert pipeline.model.checkpoint_info()["teacher"] == "my_teachers:PatchTeacher"
