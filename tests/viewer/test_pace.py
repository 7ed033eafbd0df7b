"""How large a picture may be, from how long others took."""

from types import SimpleNamespace

import pytest

from semfield_ns.viewer.machine import LiveMachine
from semfield_ns.viewer.pace import Pace


def drawn(pace: Pace, each: float, by_pixel: float, budget: float = 0.35, count: int = 30) -> list[float]:
    """Sizes of pictures, one after the other, as large as can be afforded, where that is what they take."""
    sizes = []
    for _ in range(count):
        sizes.append(min(max(pace.pixels(budget), 768), 200_000))
        pace.learn(int(sizes[-1]), each + sizes[-1] * by_pixel)
    return sizes


@pytest.mark.parametrize("rate", [500, 5_000, 100_000])
def test_what_takes_its_time_by_the_pixel_fits_the_budget(rate):
    sizes = drawn(Pace(), 0.0, 1 / rate)
    assert sizes[-1] == pytest.approx(max(768, 0.35 * rate), rel=0.01)


def test_a_busy_machine_does_not_make_pictures_small():
    pace = Pace()
    drawn(pace, 0.02, 1e-6)
    # Each picture waits for somebody else, however small it is.
    sizes = drawn(pace, 0.5, 1e-6)
    assert min(sizes[10:]) > 20_000


def test_a_picture_that_takes_longer_by_itself_may_take_twice_as_long():
    pace = Pace()
    for pixels in (1_000, 2_000, 4_000):
        pace.learn(pixels, 0.4 + pixels * 1e-3)
    assert pace.pixels(0.35) == pytest.approx(400, rel=0.01)


def test_a_busy_machine_is_not_asked_for_squares(monkeypatch):
    monkeypatch.setattr(
        "nerfstudio.viewer.render_state_machine.RenderStateMachine._calculate_image_res", lambda *_: (30, 40)
    )
    machine = object.__new__(LiveMachine)
    machine.viewer = SimpleNamespace(control_panel=SimpleNamespace(max_res=512))
    height, width = machine._calculate_image_res(4 / 3)
    assert (height, width) == (128, 171)
    machine.viewer.control_panel.max_res = 60
    assert machine._calculate_image_res(4 / 3) == (30, 40)
