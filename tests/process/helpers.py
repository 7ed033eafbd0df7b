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


def walk(count: int = 10, step: float = 0.12, turn: float = 0.0, moving: bool = True) -> list[np.ndarray]:
    """Pictures (240 x 180) of a wall, a board before it, and a disc that rises, by a camera that steps to the right."""
    wall, board = texture(3, 900, 1400), texture(4, 500, 500)
    lens = np.array([[220.0, 0, 120], [0, 220.0, 90], [0, 0, 1]])
    pictures = []
    for i in range(count):
        rotation = cv2.Rodrigues(np.array([0.0, turn * (i - count / 2), 0.0]))[0]
        centre = np.array([step * (i - count / 2), 0.05 * step * i, 0.1 * step * i])
        picture = np.zeros((180, 240, 3), np.uint8)
        for image, corner, depth, pixel in ((wall, (-7.0, -4.5), 6.0, 0.01), (board, (-1.0, -0.9), 3.6, 0.0025)):
            # Pixel (u, v) of the plane is the point corner + pixel * (u, v) at that depth.
            plane = np.array([[pixel, 0, corner[0]], [0, pixel, corner[1]], [0, 0, depth]])
            homography = lens @ rotation @ (plane - np.outer(centre, [0, 0, 1]))
            warped = cv2.warpPerspective(image, homography, (240, 180), flags=cv2.INTER_AREA)
            covers = cv2.warpPerspective(np.full(image.shape[:2], 255, np.uint8), homography, (240, 180)) > 250
            picture[covers] = warped[covers]
        if moving:
            cv2.circle(picture, (190 - 2 * i, 140 - 9 * i), 20, (230, 40, 40), -1)
            cv2.circle(picture, (190 - 2 * i, 140 - 9 * i), 9, (40, 200, 40), -1)
        pictures.append(picture)
    return pictures


def turning(count: int, step: float) -> list[np.ndarray]:
    """Pictures (240 x 180) of a far wall by a camera that turns, with a disc before it that rises."""
    pictures = []
    for i, picture in enumerate(sliding(count, 0.0, (400, 300))):
        lens = np.array([[300.0, 0, 120], [0, 300, 90], [0, 0, 1]])
        rotation = cv2.Rodrigues(np.array([0.0, step * (i - count / 2), 0.0]))[0]
        wide = np.array([[300.0, 0, 200], [0, 300, 150], [0, 0, 1]])
        seen = cv2.warpPerspective(picture, lens @ rotation @ np.linalg.inv(wide), (240, 180))
        cv2.circle(seen, (120, 140 - 8 * i), 22, (230, 40, 40), -1)
        cv2.circle(seen, (120, 140 - 8 * i), 10, (40, 200, 40), -1)
        pictures.append(seen)
    return pictures
