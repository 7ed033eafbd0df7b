"""The type checker that tests run the package under: arrays' types and shapes, at every call; mypy checks the rest.

Of long sequences beartype looks at one item, which it draws from Python's global `random`.
"""

import inspect
from collections.abc import Callable
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray


def checked(function: Callable) -> Callable:
    """`function`, which fails if it is given or gives an array that its annotations do not allow."""
    function.__annotations__ = {name: hint for name, hint in function.__annotations__.items() if _names_array(hint)}
    return beartype(function) if function.__annotations__ else function


def _names_array(hint: Any) -> bool:
    return (inspect.isclass(hint) and issubclass(hint, AbstractArray)) or any(map(_names_array, get_args(hint)))
