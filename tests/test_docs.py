"""What the documentation says is there: pages, headings, pictures, commands, and the site that is made of them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from semfield_ns.cli import main

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("docs/**/*.ipynb")])
CODE_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def text_of(path: Path) -> str:
    """The Markdown of a document; of a notebook that of its words."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    return "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")


def anchors(text: str) -> set[str]:
    """Of the headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", CODE_BLOCK.sub("", text), re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        repeats = sum(1 for other in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other))
        found.add(f"{slug}-{repeats}" if repeats else slug)
    return found


def test_anchors_are_those_of_github():
    text = "# `ns-train`: how?\n\n## A (b), c\n```bash\n# no heading\n```\n## [Link](x.md) 2.0\n## A b c\n"
    assert anchors(text) == {"ns-train-how", "a-b-c", "link-20", "a-b-c-1"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(document: Path):
    prose = re.sub(r"`[^`\n]*`", "", CODE_BLOCK.sub("", text_of(document)))
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        path, _, heading = link.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        target = (document.parent / path).resolve() if path else document
        inside = target.is_relative_to(ROOT) and target.exists()
        if not inside or (heading and heading not in anchors(text_of(target))):
            broken.append(link)
    assert broken == []


def test_the_gallery_shows_every_picture():
    shown = re.findall(r"!\[[^]]*\]\((images/[^)]+)\)", (ROOT / "docs" / "gallery.md").read_text())
    assert sorted(shown) == sorted(f"images/{path.name}" for path in (ROOT / "docs" / "images").iterdir())


def test_named_benchmarks_are_there():
    named = {name for path in DOCUMENTS for name in re.findall(r"\bbenchmarks/\w+\.(?:py|sh)\b", text_of(path))}
    assert len(named) > 20
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def semfield_lines() -> dict[str, set[str]]:
    """Options of each subcommand of `semfield`, in all blocks of commands of the documentation."""
    lines: dict[str, set[str]] = {}
    for path in DOCUMENTS:
        for language, block in CODE_BLOCK.findall(text_of(path)):
            if language == "bash":
                for line in re.sub(r"\\\n", " ", block).splitlines():
                    if found := re.match(r"\s*semfield ([\w-]+)(.*)", line.partition(" #")[0]):
                        lines.setdefault(found[1], set()).update(re.findall(r"--[\w-]+", found[2]))
    return lines


def test_commands_and_options_of_semfield_exist(capsys: pytest.CaptureFixture[str]):
    lines = semfield_lines()
    assert {"process", "export", "attach", "evaluate"} <= set(lines)
    for command, options in lines.items():
        with pytest.raises(SystemExit) as end:
            main([command, "--help"])
        described = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
        assert end.value.code == 0 and options <= described, (command, options - described)


@pytest.mark.slow
def test_the_site_is_made_without_a_warning(tmp_path: Path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    # What is not below docs/ in the repository, and what is made of docstrings.
    assert "images/hero.webp" in (tmp_path / "guide.html").read_text()
    assert 'id="semfield_ns.gaussians.rasterize.render"' in (tmp_path / "api" / "gaussians.html").read_text()
    assert "STEPS" in (tmp_path / "quickstart.html").read_text()
    assert (tmp_path / "changelog.html").exists() and (tmp_path / "contributing.html").exists()
