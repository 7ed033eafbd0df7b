"""The README stays short, and phrases that readers stumbled over do not come back."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_README_LINES = 170
# What was written once -> what to write instead.
PHRASES = {
    r"in a hurry": "Quickstart",
    r"taking it home": "Export",
    r"found by looking": "is detected automatically",
    r"is said in one line": "is logged",
    r"(is|are) told so\b": "give a warning",
    r"weights can be had": "weights are available",
    r"\bknows? words": "supports text queries",
    r"checkpoint meets a new scene": "to adapt a checkpoint to a new scene",
    r"goes on where it (was|stopped)": "resumes",
    r"\bdoubled\b": "duplicated",
    r"pick by a click": "Pick in view",
    r"the camera can be moved": "Navigating. Pick a tool to draw.",
    r"## rooms|\b(upper|lower|each|a) rooms?\b[^.\n]*\b(imports?|packages?|modules?)\b": "package",
}


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def sources() -> list[Path]:
    folders = ("semfield_ns", "method_configs", "benchmarks")
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES


@pytest.mark.parametrize("phrase", PHRASES)
def test_quaint_phrases_stay_away(phrase: str):
    # A phrase may run over the end of a line.
    pattern = re.compile(phrase.replace(" ", r"\s+"), flags=re.IGNORECASE)
    found = [str(path.relative_to(ROOT)) for path in (*pages(), *sources()) if pattern.search(path.read_text("utf-8"))]
    assert found == [], f"write {PHRASES[phrase]!r} instead"
