"""Text for the page."""

import re


def plain(text: str) -> str:
    """`text` as markdown that shows just these characters.

    viser runs its markdown as code (MDX), so everything that is not plain text is written as a character entity.
    """
    return re.sub(r"[^A-Za-z0-9 ]", lambda match: f"&#{ord(match.group())};", text)
