"""Which frame a name means, for names as people and programs give them."""

import os

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from semfield_ns.errors import SemfieldError
from semfield_ns.process.names import FrameNames, PickedFrames, match_names

FEW = [FrameNames(n, 10 * n, "") for n in range(4)]
VIDEO = PickedFrames(tuple(FrameNames(n, 4 * n, "") for n in range(12)), (), 48)
COUNTED = tuple(f"{n:04d}.png" for n in range(1, 25))


def folder(originals, every=1, **options):
    """Every so many images of a folder are picked."""
    frames = (FrameNames(n, place, originals[place]) for n, place in enumerate(range(0, len(originals), every)))
    return PickedFrames(tuple(frames), tuple(originals), len(originals), **options)


PHOTOS = folder([f"IMG_{n:04d}.JPG" for n in range(31, 55)], 4)


@pytest.mark.parametrize(
    "names, frames, numbers",
    [
        (["0003.png"], VIDEO, [3]),
        (["a/0003.png", "b/0007"], VIDEO, [3, 7]),
        (["0003.jpg.png"], VIDEO, [3]),
        (["mask_0003.png", "mask_0007.png"], VIDEO, [3, 7]),
        (["0003_gtFine_labelIds.png"], VIDEO, [3]),
        (["0003_png.rf.8d2f1c0a77e94c5ab03c2d4e6f7a8b9c.jpg"], VIDEO, [3]),
        (["images/3/cb0618f6-0003.png"], VIDEO, [3]),
        (["12345678-0003.png", "a2345678-0007.png"], VIDEO, [3, 7]),
        (["0f8fad5b-d9cb-469f-a165-70867728950e-0003.png"], VIDEO, [3]),
        (["/data/local-files/?d=walk%2F0003.png"], VIDEO, [3]),
        ([r"C:\labels\0003.png"], VIDEO, [3]),
        ([f"frame_{n:05d}.png" for n in range(1, 49)], VIDEO, [n // 4 if n % 4 == 0 else None for n in range(48)]),
        ([f"{n:04d}.png" for n in range(48)], VIDEO, [n // 4 if n % 4 == 0 else None for n in range(48)]),
        (["frame_30.jpg"], FEW, [3]),
        (["nothing.png"], FEW, [None]),
        (["0003.png", "legend.png"], VIDEO, [3, None]),
        (["IMG_0035.png", "IMG_0036.png"], PHOTOS, [1, None]),
        (["img-0035_JPG.rf.ab12.jpg"], PHOTOS, [1]),
        (["IMG_35"], PHOTOS, [1]),
        (["IMG_0035", "0002"], PHOTOS, [1, 2]),
        (["0024.png", "0007.png"], folder(COUNTED), [23, 6]),
        (["0007.png"], folder(COUNTED, meaning="picked"), [7]),
        (["0007.png"], folder(COUNTED, meaning="original"), [6]),
        (["walk_0003.png", "kitchen_0004.png"], VIDEO, [None, None]),
        (["cam1_0007.png", "cam2_0007.png"], VIDEO, [None, None]),
    ],
)
def test_names_mean_frames(names, frames, numbers):
    assert match_names(names, frames) == numbers


@pytest.mark.parametrize(
    "names, frames, parts",
    [
        (["0007.png"], folder(COUNTED), ["picked frame 0007", "original image 0007.png (picked as 0006)"]),
        (["frame_00008.png"], VIDEO, ["picked frame 0008", "from 0 (picked as 0002)", "from 1 (not picked)"]),
        (["7.png"], VIDEO, ["picked frame 0007", "picked frame 0006, counted from 1"]),
        (["20240131-0007.png"], VIDEO, ["picked frame 0007"]),
        (["facade-0007.png"], VIDEO, ["picked frame 0007"]),
        (["a/0007.png", "b/0007.png"], VIDEO, ["a/0007.png and b/0007.png both seem to be of frame 0007"]),
        (["0007_png.rf.a1.jpg", "0007_png.rf.b2.jpg"], VIDEO, ["both seem to be of frame 0007"]),
    ],
)
def test_names_that_mean_two_frames_are_an_error_that_shows_both(names, frames, parts):
    with pytest.raises(SemfieldError) as caught:
        match_names(names, frames, "labels/")
    assert all(part in str(caught.value) for part in ["labels/", *parts])


def test_the_user_can_say_what_is_meant():
    names = [f"frame_{n:05d}.png" for n in (5, 9)]
    for meaning, numbers in {"picked": [5, 9], "picked-from-1": [4, 8], "original-from-1": [1, 2]}.items():
        assert match_names(names, PickedFrames(VIDEO.frames, (), 48, meaning)) == numbers


def decorated(names, how, draw):
    """As tools write names of images."""
    digits = st.text("0123456789abcdef", min_size=8, max_size=8)
    hashes = draw(st.lists(digits, min_size=len(names), max_size=len(names), unique=True))
    hashes[0] = "c4" + hashes[0][2:]  # one of them is no number
    assume(len(set(hashes)) == len(hashes))
    return {
        "plain": [f"{name}.png" for name in names],
        "cvat": [f"default/a/{name}.png" for name in names],
        "roboflow": [f"{name}_png.rf.{hashed * 4}.jpg" for name, hashed in zip(names, hashes, strict=True)],
        "label studio": [f"images/3/{hashed}-{name}.png" for name, hashed in zip(names, hashes, strict=True)],
        "mask": [f"{name}_mask.png" for name in names],
        "double": [f"{name}.jpg.png" for name in names],
    }[how]


@st.composite
def schemes(draw):
    """(names of labels, the frames, the number of the picked frame that each label is of or None)."""
    count = draw(st.integers(4, 60))
    picks = sorted(draw(st.sets(st.integers(0, count - 1), min_size=2, max_size=12)))
    originals = ()
    if draw(st.booleans()):
        word, width = draw(st.sampled_from(["", "IMG_", "DSC-", "walk 2 "])), draw(st.sampled_from([1, 3, 4]))
        first = draw(st.sampled_from([0, 1, 31, 997]))
        originals = tuple(f"{word}{first + n:0{width}d}.jpg" for n in range(count))
    frames = tuple(FrameNames(n, place, originals[place] if originals else "") for n, place in enumerate(picks))
    meaning = draw(st.sampled_from(["picked name", "picked", "source"] + ["name", "number"] * bool(originals)))
    start, word = draw(st.integers(0, 1)), draw(st.sampled_from(["", "frame_", "out-", "take3_"]))
    width = draw(st.sampled_from([1, 2, 5, 6]))
    of_picked = meaning.startswith("picked")
    places = sorted(draw(st.sets(st.sampled_from(picks) if of_picked else st.integers(0, count - 1), min_size=1)))
    number_of = {place: n for n, place in enumerate(picks)}
    stem_of = {
        "picked name": lambda place: f"{number_of[place]:04d}",
        "picked": lambda place: f"{word}{number_of[place] + start:0{width}d}",
        "source": lambda place: f"{word}{place + start:0{width}d}",
        "name": lambda place: originals[place][:-4],
        "number": lambda place: f"{word}{first + place:0{width}d}",
    }[meaning]
    names = [stem_of(place) for place in places]
    # Names that are exactly those of original images mean these.
    assume(meaning in ("name", "picked name") or not {f"{name}.jpg" for name in names} & set(originals))
    names = decorated(
        names, draw(st.sampled_from(["plain", "cvat", "roboflow", "label studio", "mask", "double"])), draw
    )
    return names, PickedFrames(frames, originals, count), [number_of.get(place) for place in places]


@settings(max_examples=int(os.environ.get("SEMFIELD_EXAMPLES", "300")), deadline=None)
@given(schemes())
def test_every_label_lands_on_its_frame_or_an_error_shows_both_readings(scheme):
    names, frames, truth = scheme
    try:
        found = match_names(names, frames)
    except SemfieldError as error:
        text = str(error)
        # The longest of those that are in it: 1.png is a part of 11.png.
        doubtful = max((place for place, name in enumerate(names) if name in text), key=lambda place: len(names[place]))
        number = truth[doubtful]
        assert ("not picked" if number is None else f"{number:04d}") in text and "--frame-names" in text
        return
    assert found == truth or set(found) == {None}
