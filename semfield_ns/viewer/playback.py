"""Plays the video: the time slider moves by itself."""

import threading
import time

from nerfstudio.viewer.viewer_elements import ViewerCheckbox, ViewerSlider
from torch import nn

from semfield_ns.scene_model import MovingSceneModel
from semfield_ns.viewer.link import ClientButton, ViewerLink

PICTURES_A_SECOND = 15.0
"""the most that are asked for"""


class PlaybackPanel(nn.Module):
    """A button that starts and stops the video, its speed, and whether it begins anew at its end.

    Args:
        model: of a video.
        frames_a_second: at first.
    """

    def __init__(self, model: MovingSceneModel, frames_a_second: float = 12.0) -> None:
        super().__init__()
        self._player = Player(model, self)
        self.link = self._player.link
        self.a_play = ClientButton("Play or stop", lambda _: self._player.toggle())
        self.b_speed = ViewerSlider(
            "Frames a second", frames_a_second, 1.0, 60.0, 1.0, hint="Of the video, while it plays"
        )
        self.c_loop = ViewerCheckbox("Loop", True, hint="Begin anew at the end")


class Player:
    """Moves the time on, in a thread of its own, while the video plays.

    Args:
        model: of the video.
        panel: says how fast, and whether again and again.
    """

    def __init__(self, model: MovingSceneModel, panel: PlaybackPanel) -> None:
        self.link = ViewerLink(lambda: None, lambda _: None)
        # Not an attribute that Nerfstudio would search for elements.
        self._panel = lambda: panel
        self._frames = max(len(model.time_cameras(0.05)), 2)
        self._lock = threading.Lock()
        self._stop: threading.Event | None = None

    @property
    def playing(self) -> bool:
        """Whether time moves on."""
        return self._stop is not None

    def toggle(self) -> None:
        """Starts, or stops."""
        with self._lock:
            if self._stop is not None:
                self._stop.set()
                self._stop = None
            elif self.link.viewer is not None:
                self._stop = threading.Event()
                threading.Thread(target=self._play, args=(self._stop,), daemon=True).start()

    def _play(self, stop: threading.Event) -> None:
        last = time.monotonic()
        moment = self.link.time
        if moment >= 1:
            moment = 0.0
        while not stop.wait(1 / PICTURES_A_SECOND):
            now = time.monotonic()
            moment += (now - last) * self._panel().b_speed.value / (self._frames - 1)
            last = now
            if moment >= 1:
                if not self._panel().c_loop.value:
                    self.link.show_time(1.0)
                    break
                moment = 0.0
            self.link.show_time(moment)
        with self._lock:
            if self._stop is stop:
                self._stop = None
