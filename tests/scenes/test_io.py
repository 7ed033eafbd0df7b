import errno
import os

import numpy as np
import pytest

from semfield_ns import io
from semfield_ns.errors import SemfieldError


def test_round_trips(tmp_path):
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    io.write_png(tmp_path / "new" / "a.png", image)
    assert np.array_equal(np.array(io.read_image(tmp_path / "new" / "a.png")), image)
    assert io.image_size(tmp_path / "new" / "a.png") == (4, 4)
    io.write_npz(tmp_path / "a.npz", flow=np.ones((2, 3, 2), np.float16), mask=np.zeros((2, 3), bool))
    assert io.npz_shapes(tmp_path / "a.npz") == {"flow": (2, 3, 2), "mask": (2, 3)}
    assert io.read_npz(tmp_path / "a.npz")["flow"].dtype == np.float16
    io.write_npy(tmp_path / "a.npy", np.ones((2, 3)))
    assert io.npy_shape(tmp_path / "a.npy") == (2, 3)
    io.write_json(tmp_path / "a.json", {"a": [1, 2.5]})
    assert io.read_json(tmp_path / "a.json") == {"a": [1, 2.5]}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    io.write_json(path, 1)
    with pytest.raises(RuntimeError), io.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert io.read_json(path) == 1
    assert os.listdir(tmp_path) == ["a.json"]


def test_disk_full_names_the_file(tmp_path, monkeypatch):
    def full(file, **arrays):
        file.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(SemfieldError, match=r"cannot write|Cannot write.*flow\.npz.*No space left"):
        io.write_npz(tmp_path / "flow.npz", flow=np.zeros(1))
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(SemfieldError, match="Cannot write"):
        io.write_json(tmp_path / "cache" / "a.json", 1)


def test_pickles_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(SemfieldError, match=r"a\.npy"):
        io.read_npy(tmp_path / "a.npy")
