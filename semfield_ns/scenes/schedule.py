"""Which frames of a video give their labels to training: all of them, the first part, or scattered ones."""

import re

from semfield_ns.errors import SemfieldError

_PERIOD = 12  # the clip length of the Semantic Nvidia scenes, for which the scattered pattern is defined
_GRAMMAR = 'use "all", "none", "first-25%", "scattered-25%", "every-2", or frame numbers such as "0,1,11"'


def labelled_frames(schedule: str, num_frames: int) -> list[int]:
    """Indices of the labelled frames, sorted.

    "all" | "none" | "first-P%" (tracking: the first P percent) | "scattered-P%" (completion: both ends of every
    12 frames; 25% of 12 is {0, 1, 11}, 50% is {0, 1, 2, 9, 10, 11}) | "every-K" (0, K, 2K, ...) | "0,1,11".

    Raises SemfieldError for any other text, for a percentage outside (0, 100], or a frame number out of range.
    """
    text = schedule.strip().lower()
    if text == "all":
        return list(range(num_frames))
    if text == "none":
        return []
    if match := re.fullmatch(r"(first|scattered)-(\d+(?:\.\d+)?)%", text):
        fraction = float(match[2]) / 100
        if not 0 < fraction <= 1:
            raise SemfieldError(f'Label schedule "{schedule}": the percentage must be above 0 and at most 100.')
        if match[1] == "first":
            return list(range(min(num_frames, max(1, round(fraction * num_frames)))))
        count = max(1, round(fraction * _PERIOD))
        head, tail = (count + 1) // 2, count // 2
        return [i for i in range(num_frames) if i % _PERIOD < head or i % _PERIOD >= _PERIOD - tail]
    if match := re.fullmatch(r"every-(\d+)", text):
        if int(match[1]) < 1:
            raise SemfieldError(f'Label schedule "{schedule}": the step must be at least 1.')
        return list(range(0, num_frames, int(match[1])))
    if re.fullmatch(r"\d+(\s*,\s*\d+)*", text):
        frames = sorted({int(number) for number in text.split(",")})
        if frames[-1] >= num_frames:
            raise SemfieldError(
                f'Label schedule "{schedule}": frame {frames[-1]} does not exist, frames are 0 to {num_frames - 1}.'
            )
        return frames
    raise SemfieldError(f'Label schedule "{schedule}" is not understood: {_GRAMMAR}.')
