"""Time: which frame the page shows, and the video as it plays."""

import threading
import time

import numpy as np

from semfield_ns.scene_model import MovingSceneModel
from semfield_ns.viewer.elements import Button, Client, Gui, Markdown, Slider, Switch, install
from semfield_ns.viewer.layout import Layout
from semfield_ns.viewer.link import ViewerLink
from semfield_ns.viewer.text import plain

PICTURES_A_SECOND = 15.0
"""the most that are asked for"""
LONGEST_WAIT = 3.0
"""seconds for pages to paint a picture, before time moves on without them"""
MOST_LEFT_OUT = 2
"""frames between two pictures: a machine that makes fewer pictures plays slower"""


class PlaybackPanel:
    """The frame, a button that plays the video, its speed, and whether it begins anew at its end.

    Args:
        model: of a video.
        link: to the viewer.
        frames_a_second: at first.
    """

    def __init__(self, model: MovingSceneModel, link: ViewerLink, frames_a_second: float = 12.0) -> None:
        self.link = link
        cameras = model.time_cameras(0.05)
        self._times = [0.0 if camera.times is None else float(camera.times.reshape(-1)[0]) for camera in cameras]
        self.moves = len(self._times) > 1
        """whether there is anything to play"""
        last = max(len(self._times), 2)
        self.frame = Slider("Frame", 1, (1, last), 1, self._choose, hint="Arrow keys step. A playing video stops")
        self.play = Button("Play", self.toggle, hint="Space")
        self.speed = Slider(
            "Frames a second", frames_a_second, (1.0, 60.0), 1.0, lambda *_: self.follow(), hint="While it plays"
        )
        self.loop = Switch("Loop", True, hint="Begin anew at the end")
        self.where = Markdown()
        self._lock, self._choosing = threading.Lock(), threading.Lock()
        self._stop: threading.Event | None = None
        link.on_time.append(self._moved)

    def install(self, gui: Gui) -> None:
        """Adds them to the page; nothing where there is one moment only."""
        if not self.moves:
            return
        install(gui, self.frame, self.where)
        with gui.add_folder("Playback", expand_by_default=False):
            install(gui, self.speed, self.loop)

    def arrange(self, layout: Layout) -> None:
        """It stands for Nerfstudio's slider."""
        layout.replace_time()

    def show(self, step: float) -> None:
        """Another moment: a time step, which may be between two."""
        self.link.show_time(float(np.interp(step, range(len(self._times)), self._times)))

    def _choose(self, _: Client, number: float) -> None:
        """Somebody looks for a frame: what plays would run away from under the pointer."""
        # One after the other, and the last one counts: a late message would take the slider back to where it was.
        with self._choosing:
            if self.playing:
                self.toggle()
                self.frame.value = number
            self.show(self.frame.value - 1)

    @property
    def step(self) -> float:
        """The time step of the moment that pages show."""
        return float(np.interp(self.link.time, self._times, range(len(self._times))))

    def _moved(self) -> None:
        """The time is another one. While the video plays, pages are told once they have painted it."""
        if not self.playing:
            self.follow()

    def follow(self) -> None:
        """Shows which frame it is, whoever has set the time."""
        if not self.moves:
            return
        step = self.step
        if not self._choosing.locked():
            self.frame.value = round(step) + 1
        now, whole = (steps / max(float(self.speed.value), 1.0) for steps in (step, len(self._times) - 1))
        self.where.change(plain(f"Frame {round(step) + 1} of {len(self._times)}, {now:.1f} of {whole:.1f} s"))

    @property
    def playing(self) -> bool:
        """Whether time moves on."""
        return self._stop is not None

    def toggle(self, client: Client = None) -> None:
        """Starts, or stops."""
        with self._lock:
            if self._stop is not None:
                self._stop.set()
                self._stopped()
            elif self.link.viewer is not None:
                self._stop = threading.Event()
                self.play.rename("Pause")
                threading.Thread(target=self._play, args=(self._stop,), daemon=True).start()

    def _stopped(self) -> None:
        self._stop = None
        self.play.rename("Play")
        self.follow()

    def _play(self, stop: threading.Event) -> None:
        last, end = time.monotonic(), len(self._times) - 1
        step = self.step
        if step >= end:
            step = 0.0
        while not stop.wait(1 / PICTURES_A_SECOND):
            # On a busy machine the number of the frame would run ahead of its picture.
            self.link.pictured.wait(LONGEST_WAIT)
            now = time.monotonic()
            with self._lock:
                if not stop.is_set():
                    self.follow()
            step += min((now - last) * float(self.speed.value), 1 + MOST_LEFT_OUT)
            last = now
            over = step >= end and not self.loop.value
            step = step if step < end else end if over else 0.0
            with self._lock:  # so that nobody who has stopped it sees another moment afterwards
                if stop.is_set():
                    return
                self.show(step)
                if over:
                    self._stopped()
                    return
