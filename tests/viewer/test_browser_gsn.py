"""Nerfstudio's viewer on scenes that were attached, or trained on together, without waiting for a training."""

from pathlib import Path

import pytest

from semfield_ns.gsn import runs
from semfield_ns.gsn.pretrained import unpack
from semfield_ns.method_configs.gsn import gsn_tiny
from semfield_ns.scenes.synthetic import write_scene
from tests.viewer.browser import CHANGED, difference
from tests.viewer.test_browser import (  # noqa: F401 (fixtures)
    page,
    picture,
    pytestmark,
    show_output,
    viewer,
)


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory) -> Path:
    """The weights of the package on two scenes at once."""
    folder = tmp_path_factory.mktemp("gsn_viewer")
    for seed in range(2):
        where = folder / "scenes" / f"scene_{seed}"
        write_scene("static", where, seed, num_frames=9, width=48, height=36, samples_per_axis=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEMFIELD_CACHE", str(folder / "cache"))
        config = runs.read_run(unpack(gsn_tiny.config, folder))
        config.data = config.pipeline.datamanager.data = folder / "scenes"
        path = runs.write_config(config)
        yield path


def test_features_and_scenes_change_the_picture(page):  # noqa: F811
    colors = picture(page)
    show_output(page, "Features")
    features = picture(page, unlike=colors)
    page.get_by_label("Scene", exact=True).click()
    page.get_by_role("option", name="scene_1").click()
    other = picture(page, unlike=features)
    assert min(difference(colors, features), difference(features, other), difference(colors, other)) > CHANGED
