"""What the options of all commands have in common: how they read in the help, and what is checked before any work."""

import functools
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from semfield_ns.errors import SemfieldError
from semfield_ns.io import require_writable
from semfield_ns.run_folder import run_config

RUNS = ("load_config", "run")
"""parameters that name a run: the folder is taken for the config.yml in it"""


def prepared(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command as tyro should see it: runs may be folders, and what cannot be written is said before any work."""
    signature = inspect.signature(command)

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        if "output_dir" in given.arguments:
            require_writable(given.arguments["output_dir"])
        if "output" in given.arguments:
            require_writable(given.arguments["output"].parent)
            if given.arguments["output"].is_dir():
                raise SemfieldError(f"{given.arguments['output']} is a folder: give a file in it as --output.")
        for name in RUNS:
            if given.arguments.get(name) is not None:
                given.arguments[name] = run_config(given.arguments[name])
        return command(*given.args, **given.kwargs)

    hints = get_type_hints(command, include_extras=True)
    parameters = [
        parameter.replace(annotation=_readable(hints[name], parameter.default))
        for name, parameter in signature.parameters.items()
    ]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    # tyro keeps the line breaks of docstrings, which are not those of the terminal.
    run.__doc__ = re.sub(r"\n {8,}(?=\S)", " ", inspect.getdoc(command) or "")
    del run.__wrapped__
    return run


def _readable(annotation: Any, default: Any) -> Any:
    """An annotation whose help is `--option PATH ... (optional)` where tyro's is `{None}|PATH ... (default: None)`."""
    import tyro

    options = get_args(annotation)
    if default is not None or get_origin(annotation) is Annotated or len(options) != 2:
        return annotation
    kind = next(option for option in options if option is not type(None))
    name = {Path: "PATH", int: "INT", float: "FLOAT", str: "TEXT"}[kind]
    return Annotated[Union[kind, None], tyro.conf.arg(metavar=name, help_behavior_hint="(optional)")]  # noqa: UP007
