"""Lists of inputs, and shares of them."""

from pathlib import Path

import pytest

from semfield_ns.cli.shards import read_list, run_share, share_of
from semfield_ns.errors import SemfieldError


def listed(folder: Path, text: str) -> Path:
    path = folder / "videos.txt"
    path.write_text(text)
    return path


def test_a_list_names_inputs_from_its_own_folder(tmp_path):
    path = listed(tmp_path, "# of today\na.mp4\n\n  sub/b.mov \n/elsewhere/c.mp4\n")
    assert read_list(path) == {
        "a": tmp_path / "a.mp4",
        "b": tmp_path / "sub" / "b.mov",
        "c": Path("/elsewhere/c.mp4"),
    }


@pytest.mark.parametrize("text, said", [("a.mp4\nb/a.mov", "same name"), ("# nothing\n", "names no input")])
def test_lists_that_cannot_be_meant(tmp_path, text, said):
    with pytest.raises(SemfieldError, match=said):
        read_list(listed(tmp_path, text))


def test_shards_share_all_inputs():
    inputs = {f"video{number}": Path(f"video{number}.mp4") for number in range(11)}
    shares = [share_of(inputs, f"{number}/4") for number in range(1, 5)]
    assert sorted(len(share) for share in shares) == [2, 3, 3, 3]
    assert {name: path for share in shares for name, path in share.items()} == inputs


@pytest.mark.parametrize("shard", ["0/4", "5/4", "4", "a/b", "/", "-1/4", "1/0"])
def test_shards_that_there_are_not(shard):
    with pytest.raises(SemfieldError, match="write I/N"):
        share_of({"a": Path("a.mp4")}, shard)


def test_one_that_fails_does_not_keep_the_others_from_being_done():
    done = []

    def run(name: str, source: Path) -> None:
        if name == "b":
            raise SemfieldError(f"{source} cannot be read.")
        done.append(name)

    with pytest.raises(SemfieldError, match=r"1 of 3 inputs failed \(b\)"):
        run_share({name: Path(name) for name in "abc"}, run)
    assert done == ["a", "c"]
