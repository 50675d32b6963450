"""A head or backbone in anyone's module, `package.module:factory`: its name here, and how it is imported.

What a factory takes and gives is what `models.registry` says; JAX is imported by `register` alone.
"""

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from gapbench.spec import Declaration, UserError, choose, explain

PLACE = r"^[\w.]+:\w+$"
FIELDS = {"head": "head", "backbone": "backbone.kind"}  # of a spec, that name one


class Factory(Declaration):
    """What makes a head or a backbone, and where it stands."""

    part: Literal["head", "backbone"]
    place: Annotated[str, Field(pattern=PLACE)]

    @property
    def name(self) -> str:
        """What specs call it: `mynets_small_resnet` for `mynets.small:ResNet`."""
        return re.sub(r"[^a-z0-9]+", "_", self.place.lower()).strip("_")

    @property
    def field(self) -> str:
        """Of a spec, the one that names it."""
        return FIELDS[self.part]

    def load(self) -> Callable[..., Any]:
        """The factory, from the current folder or an installed package; UserError of one line where that fails."""
        module_name, _, attribute = self.place.partition(":")
        flag = f"--{self.part} {self.place}"
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and f"{module_name}.".startswith(f"{error.name}."):
                raise UserError(f"{flag}: no module {error.name!r} in {Path.cwd()} or installed") from error
            raise UserError(f"{flag}: {explain(error)}") from error
        except Exception as error:  # whatever the user's own module raises
            raise UserError(f"{flag}: {explain(error)}") from error
        if not hasattr(module, attribute):
            try:
                choose(f"name in {module_name}", attribute, (name for name in vars(module) if name[0] != "_"))
            except UserError as error:
                raise UserError(f"{flag}: {error}") from error
        found = getattr(module, attribute)
        if not callable(found):
            raise UserError(f"{flag}: of type {type(found).__name__}, not a class or function that makes a {self.part}")
        return found

    def register(self) -> None:
        """Make it known to `models.classifier` under its name."""
        from gapbench.models import register_backbone, register_head

        registers: dict[str, Any] = {"head": register_head, "backbone": register_backbone}
        registers[self.part](self.name)(self.load())


def factory_of(part: Literal["head", "backbone"], place: str | None) -> Factory | None:
    """What the flag of this name gives; raises UserError where it is no MODULE:FACTORY."""
    if place is None:
        return None
    if not re.fullmatch(PLACE, place):
        raise UserError(f"--{part} {place}: give MODULE:FACTORY; --set {FIELDS[part]}=NAME takes one that has a name")
    return Factory(part=part, place=place)
