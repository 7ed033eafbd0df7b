"""Small videos and posed scenes that are made in a second."""

import struct
from pathlib import Path

import cv2
import numpy as np

from semfield_ns.process.geometry import Camera, View, camera_to_world, pixel_grid, relative_pose

WIDTH, HEIGHT = 160, 120


def texture(seed: int = 0, height: int = 400, width: int = 600) -> np.ndarray:
    """(H,W,3) uint8 with detail at several scales."""
    generator = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cell, weight in ((4, 0.3), (12, 0.4), (40, 0.3)):
        noise = generator.random((height // cell + 2, width // cell + 2, 3))
        total += weight * cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return (np.clip((total - 0.2) / 0.6, 0, 1) * 255).astype(np.uint8)


def write_video(path: Path, pictures: list[np.ndarray], times: list[float] | None = None, rotation: int = 0) -> Path:
    """H.264 in mp4, with a time stamp a frame; rotation is the tag of a phone, degrees clockwise."""
    from fractions import Fraction

    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "12", "preset": "ultrafast"}
        stream.codec_context.time_base = Fraction(1, 1000)
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = round(1000 * (times[i] if times else i / 30))
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    if rotation:
        content = path.read_bytes()
        place = content.index(b"tkhd") + 4 + 40  # the display matrix in the track's header
        cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[rotation]
        matrix = struct.pack(">9i", cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30)
        path.write_bytes(content[:place] + matrix + content[place + 36 :])
    return path


def sliding(count: int, step: float = 3.0, size: tuple[int, int] = (WIDTH, HEIGHT), seed: int = 0) -> list[np.ndarray]:
    """Crops of one texture that slide to the left."""
    canvas = texture(seed, size[1] + 40, size[0] + int(step * count) + 40)
    return [canvas[20 : 20 + size[1], round(20 + step * i) : round(20 + step * i) + size[0]] for i in range(count)]


def camera() -> Camera:
    return Camera(150.0, 150.0, WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT)


def pose(x: float, y: float = 0.0, z: float = 0.0, turn: float = 0.0) -> np.ndarray:
    """Camera-to-world of a camera at (x, y, z), in OpenCV world axes, turned about the vertical."""
    w2c = np.eye(4)
    w2c[:3, :3] = cv2.Rodrigues(np.array([0.0, turn, 0.0]))[0]
    w2c[:3, 3] = -w2c[:3, :3] @ [x, y, z]
    return camera_to_world(w2c)


def view_of(depth: np.ndarray, here: np.ndarray, there: np.ndarray, lens: Camera | None = None) -> View:
    """The exact flow of static points at the given z-depths."""
    lens = lens or camera()
    grid = pixel_grid(*depth.shape)
    rays = np.concatenate([lens.normalise(grid), np.ones((*depth.shape, 1))], axis=-1)
    turn = relative_pose(here, there)
    points = (rays * depth[..., None]) @ turn[:3, :3].T + turn[:3, 3]
    flow = lens.project(points) - grid
    return View(flow.astype(np.float32), np.ones(depth.shape, bool), turn, lens)
