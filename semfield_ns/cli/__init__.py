"""The console command `semfield`. Modules of subcommands import light: what is heavy is imported where it is used."""

import difflib
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from semfield_ns.compat.commands import INTERRUPTED, provide_ffmpeg

GROUPS = {
    "Start": ("demo", "synthetic", "process", "track"),
    "Use a run": ("view", "segment", "objects", "edit", "export", "evaluate", "camera-path"),
    "Photos": ("attach",),
    "Checkpoints": ("import-checkpoint", "export-checkpoint"),
}
"""the commands as people look for them; each is the function of that name in the module of that name"""
ELSEWHERE = {"train": "ns-train", "render": "ns-render", "eval": "ns-eval"}
"""commands that people expect here, and that are Nerfstudio's"""


def main(args: Sequence[str] | None = None) -> None:
    """Runs the subcommand that the command line names.

    Args:
        args: the command line without the program's name; that of the process if None.
    """
    provide_ffmpeg()
    try:
        _run(list(sys.argv[1:] if args is None else args))
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr, flush=True)
        sys.exit(INTERRUPTED)


def _run(args: list[str]) -> None:
    if not args:
        print(first_steps())
        return
    name, *rest = args
    if name in ("-h", "--help"):
        print(overview())
        sys.exit(0)
    if name == "--version":
        from semfield_ns import __version__

        print(f"semfield {__version__}")
        return
    if name not in names():
        print(unknown(name), file=sys.stderr)
        sys.exit(2)
    import tyro

    from semfield_ns.cli.options import prepared

    tyro.cli(prepared(command(name)), prog=f"semfield {name}", args=rest)


def names() -> list[str]:
    """All commands."""
    return [name for group in GROUPS.values() for name in group]


def command(name: str) -> Callable[..., Any]:
    """The function that a command runs."""
    name = name.replace("-", "_")
    return getattr(importlib.import_module(f"semfield_ns.cli.{name}"), name)


def first_steps() -> str:
    """What somebody reads who typed `semfield` alone."""
    from semfield_ns.cli.hints import typed

    program = typed("semfield")
    return (
        "Semantic neural fields of your scenes, with Nerfstudio.\n\n"
        "See it work on a synthetic scene, in minutes:\n"
        f"  {program} demo\n"
        "Make a scene of your own video:\n"
        f"  {program} process VIDEO --output-dir SCENE\n\n"
        f"All commands: {program} --help"
    )


def overview() -> str:
    """The help of the whole program: all commands by group, each with the first line of its own help."""
    width = max(map(len, names()))
    text = ["usage: semfield COMMAND [OPTIONS]", "", "Semantic neural fields of your scenes, with Nerfstudio."]
    for group, commands in GROUPS.items():
        text += ["", f"{group}:"]
        text += [f"  {name:<{width}}  {(command(name).__doc__ or '').splitlines()[0]}" for name in commands]
    return "\n".join([*text, "", "Options of a command: semfield COMMAND --help"])


def unknown(name: str) -> str:
    """What to say of a command that there is not."""
    if name.startswith("-"):
        return f"Unknown option '{name}': a command comes first, see semfield --help."
    if name in ELSEWHERE:
        return f"Unknown command '{name}'. Nerfstudio's {ELSEWHERE[name]} does this: {ELSEWHERE[name]} --help."
    near = difflib.get_close_matches(name, names(), n=1)
    return f"Unknown command '{name}'. " + (f"Did you mean '{near[0]}'?" if near else "See semfield --help.")
