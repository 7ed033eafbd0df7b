"""Words on pictures: captions, and grids of pictures with titles for their rows and columns."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

INK, PAPER = (38, 43, 51), (255, 255, 255)
GAP = 6
"""px between the pictures of a grid"""


def captioned(picture: Image.Image, text: str, opacity: float = 1.0) -> Image.Image:
    """The picture with a line of text on a dark bar at its lower left.

    Args:
        picture: RGB.
        text: one line.
        opacity: of the text and its bar, from 0 to 1.
    """
    font = ImageFont.load_default(size=picture.height / 20)
    layer = Image.new("RGBA", picture.size)
    draw = ImageDraw.Draw(layer)
    margin = picture.height // 30
    left, top, right, bottom = draw.textbbox((2 * margin, picture.height - 2 * margin), text, font=font, anchor="ls")
    bar = (left - margin, top - margin // 2, right + margin, bottom + margin // 2)
    draw.rounded_rectangle(bar, radius=margin // 2, fill=(*INK, round(215 * opacity)))
    draw.text(
        (2 * margin, picture.height - 2 * margin), text, font=font, anchor="ls", fill=(*PAPER, round(255 * opacity))
    )
    return Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")


def titled_grid(
    rows: Sequence[Sequence[np.ndarray]], row_titles: Sequence[str] = (), column_titles: Sequence[str] = ()
) -> Image.Image:
    """Pictures in rows and columns, with a title beside each row and above each column.

    Args:
        rows: uint8 pictures [height, width, 3]; all of one height, and those of a column of one width.
        row_titles: one a row, or none at all; a newline breaks a title into lines.
        column_titles: one a column, or none at all.
    """
    height, widths = rows[0][0].shape[0], [picture.shape[1] for picture in rows[0]]
    font = ImageFont.load_default(size=15)
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    boxes = [measure.multiline_textbbox((0, 0), title, font=font) for title in row_titles]
    left = round(max((box[2] for box in boxes), default=-3 * GAP)) + 3 * GAP
    top = 26 if column_titles else GAP
    starts = np.cumsum([left] + [width + GAP for width in widths]).tolist()
    sheet = Image.new("RGB", (starts[-1], top + len(rows) * (height + GAP)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for j, title in enumerate(column_titles):
        draw.text((starts[j] + widths[j] / 2, top / 2), title, font=font, fill=INK, anchor="mm")
    for i, row in enumerate(rows):
        y = top + i * (height + GAP)
        if row_titles:
            place = (left - GAP, y + height / 2)
            draw.multiline_text(place, row_titles[i], font=font, fill=INK, anchor="rm", align="right")
        for j, picture in enumerate(row):
            sheet.paste(Image.fromarray(picture), (starts[j], y))
    return sheet


def pixels(picture: torch.Tensor) -> np.ndarray:
    """[height, width, 3] in [0, 1] as uint8."""
    return (picture.clamp(0, 1) * 255).round().byte().cpu().numpy()


def save(picture: Image.Image, path: Path) -> None:
    """Writes a JPEG; its folder is made if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, quality=85)
