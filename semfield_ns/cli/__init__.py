"""The console command `semfield`. Modules of subcommands import light: what is heavy is imported where it is used."""

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any


def main(args: Sequence[str] | None = None) -> None:
    """Runs the subcommand that the command line names.

    Args:
        args: the command line without the program's name; that of the process if None.
    """
    if list(sys.argv[1:] if args is None else args) == ["--version"]:
        from semfield_ns import __version__

        print(f"semfield {__version__}")
        return

    import tyro

    from semfield_ns.cli.attach import attach
    from semfield_ns.cli.camera_path import camera_path
    from semfield_ns.cli.demo import demo
    from semfield_ns.cli.edit import edit
    from semfield_ns.cli.evaluate import evaluate
    from semfield_ns.cli.export import export
    from semfield_ns.cli.export_checkpoint import export_checkpoint
    from semfield_ns.cli.import_checkpoint import import_checkpoint
    from semfield_ns.cli.objects import objects
    from semfield_ns.cli.process import process
    from semfield_ns.cli.segment import segment
    from semfield_ns.cli.synthetic import synthetic

    commands: dict[str, Callable[..., Any]] = {
        "demo": demo,
        "process": process,
        "camera-path": camera_path,
        "edit": edit,
        "evaluate": evaluate,
        "objects": objects,
        "export": export,
        "segment": segment,
        "synthetic": synthetic,
        "attach": attach,
        "import-checkpoint": import_checkpoint,
        "export-checkpoint": export_checkpoint,
    }
    tyro.extras.subcommand_cli_from_dict(
        {name: able_to_write(command) for name, command in commands.items()},
        prog="semfield",
        description="Semantic neural fields of your scenes, with Nerfstudio. --version says which version this is.",
        args=args,
    )


def able_to_write(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command, which now asks first whether its `output_dir` or `output` can be written: some work for minutes."""
    parameters = inspect.signature(command)

    @functools.wraps(command)
    def asked(*args: Any, **kwargs: Any) -> Any:
        from semfield_ns.io import require_writable

        given = parameters.bind(*args, **kwargs).arguments
        if "output_dir" in given:
            require_writable(given["output_dir"])
        if "output" in given:
            require_writable(given["output"].parent)
        return command(*args, **kwargs)

    return asked
