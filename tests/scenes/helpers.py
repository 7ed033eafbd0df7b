"""Tiny scenes written to a folder: 4 frames of 16x12 pixels, a camera that moves sideways, a square that moves too."""

import json

import numpy as np
from PIL import Image

NUM_FRAMES, WIDTH, HEIGHT, FOCAL = 4, 16, 12, 20.0
CLASSES = [
    {"id": 0, "name": "ground", "color": [0, 0, 0], "dynamic": False},
    {"id": 1, "name": "cat", "color": [128, 0, 0], "dynamic": True},
    {"id": 2, "name": "tree", "color": [0, 128, 0], "dynamic": False},
]
PALETTE = np.array([c["color"] for c in CLASSES], dtype=np.uint8)


def picture(index):
    """(H,W,3) uint8, smooth, another one for each index."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = [np.sin(0.5 * (x - index) + c) + np.cos(0.4 * y + c) for c in range(3)]
    return (127 + 60 * np.stack(waves, axis=-1)).astype(np.uint8)


def square(index):
    """(H,W) bool: where the moving thing is."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[3:7, 2 + index : 6 + index] = True
    return mask


def class_ids(index):
    ids = square(index).astype(np.uint8)
    ids[9:, 10:] = 2
    return ids


def pose(index):
    """Camera-to-world 4x4: the camera slides along x, looking along -z."""
    c2w = np.eye(4)
    c2w[0, 3] = 0.1 * index
    return c2w


def save_png(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def save_npz(path, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def constant_flow(dx, dtype=np.float32):
    return np.broadcast_to(np.array([dx, 0], dtype), (HEIGHT, WIDTH, 2)).copy()


def read_meta(root):
    return json.loads((root / "transforms.json").read_text())


def write_meta(root, meta):
    (root / "transforms.json").write_text(json.dumps(meta))


def edit(root, change):
    """Apply `change` to the content of transforms.json."""
    meta = read_meta(root)
    change(meta)
    write_meta(root, meta)


def write_transforms_scene(root, flow=True, depth=True, semantics=True):
    """An extended transforms.json with labels (ids), masks, flow and metric depth (PNG, mm)."""
    meta = {"camera_model": "OPENCV", "w": WIDTH, "h": HEIGHT, "fl_x": FOCAL, "fl_y": FOCAL, "cx": 8.0, "cy": 6.0}
    meta["frames"] = []
    if semantics:
        meta["semantics"] = {"classes": CLASSES, "ignore_index": 255}
    for i in range(NUM_FRAMES):
        name = f"{i:03d}"
        frame = {"file_path": f"images/{name}.png", "time": 10.0 + 2 * i, "transform_matrix": pose(i).tolist()}
        save_png(root / "images" / f"{name}.png", picture(i))
        if semantics:
            frame["semantic_path"] = f"labels/{name}.png"
            save_png(root / "labels" / f"{name}.png", class_ids(i))
        frame["dynamic_mask_path"] = f"masks/{name}.png"
        save_png(root / "masks" / f"{name}.png", square(i).astype(np.uint8) * 255)
        if depth:
            frame["depth_file_path"] = f"depth/{name}.png"
            save_png(root / "depth" / f"{name}.png", np.full((HEIGHT, WIDTH), 2000, np.uint16))
        for key, step, exists in (("fwd", 1, i + 1 < NUM_FRAMES), ("bwd", -1, i > 0)):
            if flow and exists:
                frame[f"flow_{key}_path"] = f"flow/{name}_{key}.npz"
                save_npz(root / "flow" / f"{name}_{key}.npz", flow=constant_flow(step), mask=square(i))
        meta["frames"].append(frame)
    root.mkdir(parents=True, exist_ok=True)
    write_meta(root, meta)
    return root


def llff_rows(num_frames=NUM_FRAMES, reduction=2, near=5.0, far=50.0):
    """(N,17) poses_bounds of the same cameras, at `reduction` times the size of the pictures."""
    rows = []
    for i in range(num_frames):
        right, up, back, position = (pose(i)[:3, k] for k in range(4))
        hwf = np.array([HEIGHT * reduction, WIDTH * reduction, FOCAL * reduction])
        rows.append(np.concatenate([np.stack([-up, right, back, position, hwf], axis=-1).ravel(), [near, far]]))
    return np.array(rows)


def write_llff_scene(root):
    for i in range(NUM_FRAMES):
        save_png(root / "images_2" / f"{i:03d}.png", picture(i))
    np.save(root / "poses_bounds.npy", llff_rows())
    return root


def write_nvidia_scene(root, held_out=False):
    """The Semantic Nvidia layout; labelmap.txt and foreground_object.txt beside the scene's folder."""
    write_llff_scene(root)
    for i in range(NUM_FRAMES):
        name = f"{i:03d}"
        save_png(root / "SegmentationClass_train" / f"{name}.png", PALETTE[class_ids(i)])
        save_png(root / "motion_masks" / f"{name}.png", square(i).astype(np.uint8) * 255)
        (root / "disp").mkdir(exist_ok=True)
        np.save(root / "disp" / f"{name}.npy", np.full((HEIGHT // 2, WIDTH // 2), 1.5 + i, np.float32))
        if i + 1 < NUM_FRAMES:
            save_npz(root / "flow" / f"{name}_fwd.npz", flow=constant_flow(1, np.float16), mask=square(i))
        if i > 0:
            save_npz(root / "flow" / f"{name}_bwd.npz", flow=constant_flow(-1, np.float16), mask=square(i))
    lines = ["# label:color_rgb:parts:actions", *(f"{c['name']}:{','.join(map(str, c['color']))}::" for c in CLASSES)]
    (root.parent / "labelmap.txt").write_text("\n".join(lines) + "\n")
    (root.parent / "foreground_object.txt").write_text("cat\n")
    if held_out:
        for time in range(NUM_FRAMES):
            for camera in range(1, NUM_FRAMES + 1):
                place = f"{time:08d}/cam{camera:02d}"
                big = np.kron(PALETTE[class_ids(time)], np.ones((2, 2, 1), np.uint8))
                save_png(root / "multiview_GT" / f"{place}.jpg", np.kron(picture(time), np.ones((2, 2, 1), np.uint8)))
                save_png(root / "multiview_GT_semantic" / f"{place}.png", big)
    return root
