"""Hooks of mkdocs: files of the repository that are pages of the site too, and links to them."""

import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PAGES = {
    "README.md": "guide.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "docs/quickstart.ipynb": "quickstart.md",
}
"""file of the repository -> page of the site"""
_LINK = re.compile(r"(\]\()([^)\s]+)")
_CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    root = Path(config.config_file_path).parent
    for source, target in PAGES.items():
        text = (root / source).read_text(encoding="utf-8")
        content = notebook_page(text) if source.endswith(".ipynb") else text
        files.append(File.generated(config, target, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links are written for the repository; here they lead to pages of the site."""
    sources = {target: source for source, target in PAGES.items()}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    parts = _CODE.split(markdown)
    parts[::2] = [
        _LINK.sub(lambda link: link[1] + site_link(link[2], source, page.file.src_uri), p) for p in parts[::2]
    ]
    return "".join(parts)


def site_link(link: str, source: str, page: str) -> str:
    """The link of a repository's file, as a page of the site has it.

    Args:
        link: relative, or an address, which stays.
        source: file that has it, from the repository's root.
        page: that this file becomes, from the site's root.
    """
    path, mark, heading = link.partition("#")
    if not path or ":" in path:
        return link
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    target = PAGES.get(target, target.removeprefix("docs/"))
    return posixpath.relpath(target, posixpath.dirname(page) or ".") + mark + heading


def notebook_page(text: str) -> str:
    """A notebook as Markdown: its words and its code, without results."""
    cells = [("".join(cell["source"]), cell["cell_type"]) for cell in json.loads(text)["cells"]]
    return "\n\n".join(source if kind == "markdown" else f"```python\n{source}\n```" for source, kind in cells)
