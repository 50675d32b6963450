"""What is trained: the frozen, validated declarations every other module reads, and their identities.

Nothing of ours is imported here, and nothing heavy: a spec can be read on a laptop without JAX.
"""

import difflib
import hashlib
import itertools
import json
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0)]
Precision = Literal["float32", "bfloat16"]


class UserError(Exception):
    """Bad input that one line can explain: the command line prints it without a traceback, exit code 2."""


class Declaration(BaseModel):
    """Base of every spec: frozen, hashable, and closed to misspelt fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Task(Declaration):
    """Which images, at which size."""

    dataset: str  # a name in gapbench.data.sources.SOURCES, folder:NAME, or what `data.canvas` gives
    px: Annotated[int, Field(ge=4)]  # side of the square input, after resizing
    train_images: PositiveInt  # drawn by seed, stratified by class
    val_images: PositiveInt = 500  # drawn by seed from the training images that are left
    curve_images: PositiveInt = 200  # of each split, the most that the evaluations before the last step look at


class Backbone(Declaration):
    """The convolutional stages both heads share."""

    kind: str = "plain"  # a name in gapbench.models.registry.BACKBONES; nin: Network in Network, 192 wide in the paper
    width: PositiveInt = 16  # channels of the first stage; doubled at each further stage (nin: kept)
    stages: PositiveInt = 2  # two 3×3 convolutions and a 2×2 max pool each
    norm: Literal["none", "batch", "group"] = "none"
    padding: Literal["zero", "valid", "circular"] = "zero"
    dropout: Fraction = 0.0  # on the maps between the stages, element by element

    @model_validator(mode="after")
    def _is_that_of_the_paper(self) -> "Backbone":
        if self.kind == "nin":
            if self.width % 6:
                raise ValueError(f"width={self.width}: nin has maps of 5/6 and 1/2 of it, so use a multiple of 6")
            for name, only in (("stages", 2), ("norm", "none"), ("padding", "zero")):
                if getattr(self, name) != only:
                    raise ValueError(f"{name}={getattr(self, name)}: nin has no other {name} than {only}; leave it out")
        return self

    @property
    def channels(self) -> int:
        """C, the channels of the last feature map."""
        return self.width if self.kind == "nin" else int(self.width * 2 ** (self.stages - 1))

    @property
    def stride(self) -> int:
        """Pixels of the input from one position of the last feature map to the next."""
        return int(2**self.stages)

    @property
    def start(self) -> int:
        """The input's first pixel under the last feature map: what unpadded convolutions leave out before it.

        The 3×3 pools of nin centre one and a half pixels later than 2×2 ones would.
        """
        if self.kind == "nin":
            return 2
        return 2 * (self.stride - 1) if self.padding == "valid" else 0

    def feature_px(self, px: int) -> int:
        """H' of the last feature map for a px×px input; 0 or less when the input is too small."""
        for _ in range(self.stages):
            px = (px - 4 if self.padding == "valid" else px) // 2
        return px


class Recipe(Declaration):
    """How the weights are found; equal for both heads in the shared regime."""

    optimizer: Literal["adamw", "sgd"] = "adamw"  # sgd: Nesterov momentum 0.9
    peak_lr: Annotated[float, Field(gt=0)]
    batch: PositiveInt
    steps: PositiveInt
    eval_every: PositiveInt  # steps from the start to the first evaluation; the last step is always evaluated
    eval_growth: Annotated[float, Field(ge=1)] = 1.0  # each interval is so many times the one before
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 0  # linear, from zero
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4  # on kernels alone; decoupled for adamw, L2 for sgd
    head_lr: Annotated[float, Field(gt=0)] = 1.0  # a factor on the head's learning rate
    head_weight_decay: Annotated[float, Field(ge=0)] | None = None  # of the head's kernels; None: weight_decay
    augment: Literal["none", "shift"] = "none"  # shift: each image by up to 2 px each way, in every step anew
    dropout: Fraction = 0.0  # on the vector that the head's dense layer sees: of gap, the averaged one, not the map
    precision: Precision = "float32"  # of activations and products; parameters stay float32

    @model_validator(mode="after")
    def _warmup_fits(self) -> "Recipe":
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps ({self.warmup_steps}) must be below steps ({self.steps})")
        return self

    @property
    def eval_steps(self) -> tuple[int, ...]:
        """The fixed evaluation grid: 0, then at intervals of eval_every · eval_growth^i, and the last step."""
        grid, interval = [0.0], float(self.eval_every)
        while (step := grid[-1] + interval) < self.steps:
            grid.append(step)
            interval *= self.eval_growth
        return (*map(round, grid), self.steps)


class Audit(Declaration):
    """What else is asked of a net once it is trained; the answers stand in its record, and the net is kept."""

    maps: bool = False  # where its evidence lies, on canvases: gapbench/maps.py
    sizes: tuple[PositiveInt, ...] = ()  # px of test images it was not built for: gapbench/sizes.py
    shifts: tuple[PositiveInt, ...] = ()  # px, down and to the right, over the border: gapbench/shifts.py


# Of a recipe: what it does to the head alone, and so part of what is compared.
ARM_FIELDS = ("dropout", "head_weight_decay")


class RunSpec(Declaration):
    """One run: everything that decides its numbers."""

    task: Task
    backbone: Backbone
    head: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*(:[a-z0-9_.]+)?$")]  # a name in HEADS, or name:argument
    recipe: Recipe
    seed: Seed
    repeat: Annotated[int, Field(ge=0)] = 0  # the same run again: what then differs, the hardware added
    audit: Audit = Audit()

    @model_validator(mode="after")
    def _size_fits(self) -> "RunSpec":
        if self.backbone.feature_px(self.task.px) < 1:
            smallest = next(px for px in itertools.count(4) if self.backbone.feature_px(px) >= 1)
            raise ValueError(
                f"px={self.task.px} leaves no feature map after {self.backbone.stages} stages with"
                f" {self.backbone.padding} padding: use px >= {smallest} or fewer stages"
            )
        return self

    @property
    def program(self) -> "RunSpec":
        """Equal for the specs that one compiled program trains: the rest is its input (`train.Hyper`, keys, images)."""
        dropout = 0.5 if self.recipe.dropout else 0.0  # none at all is another program
        inputs = {"peak_lr": 1.0, "weight_decay": 0.0, "head_weight_decay": None, "dropout": dropout}
        recipe = self.recipe.model_copy(update=inputs)
        return self.model_copy(update={"recipe": recipe, "seed": 0, "repeat": 0, "audit": Audit()})

    @property
    def run_id(self) -> str:
        """Reads aloud and ends in a hash of the spec: `mnist5k-20px-plain-gap-s03-1f9a6c2e`.

        The hash knows nothing of fields at their defaults, so that a field added later moves no identity; a default,
        once published, must not change.
        """
        name = f"{self.task.dataset}-{self.task.px}px-{self.backbone.kind}-{self.head}-s{self.seed:02d}"
        return f"{file_safe(name)}-{digest(self.model_dump(exclude_defaults=True))}"

    @property
    def pair_id(self) -> str:
        """Equal for the runs that may be compared: same task, backbone and seed (the head and recipe may differ)."""
        return digest(self.model_dump(exclude={"head", "recipe", "repeat"}, exclude_defaults=True))

    @property
    def arm(self) -> str:
        """What is compared in a cell: the head, and what the recipe does to it alone: `gap, dropout 0.5`."""
        recipe = self.recipe
        parts = [
            f"dropout {recipe.dropout:g}" if recipe.dropout else "",
            "" if recipe.head_weight_decay is None else f"head decay {recipe.head_weight_decay:g}",
            "again" if self.repeat else "",
        ]
        return ", ".join(filter(None, (self.head, *parts)))

    @property
    def cell_key(self) -> "RunSpec":
        """Equal for the runs that the shared regime compares: everything but the arm and the seed."""
        recipe = self.with_recipe(**{name: Recipe.model_fields[name].default for name in ARM_FIELDS})
        return recipe.model_copy(update={"head": "any", "seed": 0, "repeat": 0})

    @property
    def cell_row(self) -> dict[str, Any]:
        """The row without what makes the arm, and without the seed."""
        return {name: value for name, value in self.row.items() if name not in ("head", "seed", "repeat", *ARM_FIELDS)}

    def with_recipe(self, **changes: Any) -> "RunSpec":
        """The same run with another recipe."""
        return self.model_copy(update={"recipe": self.recipe.model_copy(update=changes)})

    @property
    def row(self) -> dict[str, Any]:
        """The spec as one flat row: dataset, px, ..., head, peak_lr, ..., seed."""
        return {
            **self.task.model_dump(),
            **self.backbone.model_dump(exclude={"dropout"}),
            "backbone_dropout": self.backbone.dropout,
            "head": self.head,
            **self.recipe.model_dump(),
            "seed": self.seed,
            "repeat": self.repeat,
        }


ModelT = TypeVar("ModelT", bound=BaseModel)


def validate(model: type[ModelT], value: Any, where: str) -> ModelT:
    """`model` made from a dict or JSON text; a UserError of one line names `where` and the first wrong field."""
    try:
        if isinstance(value, (str, bytes)):
            return model.model_validate_json(value)
        return model.model_validate(value)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error)}") from error


def explain(error: Exception) -> str:
    """One line: the first wrong field and what is wrong with it, or the first line of any other error."""
    if not isinstance(error, ValidationError):
        return f"{type(error).__name__}: {error}".splitlines()[0]
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"]))
    return f"{field + ': ' if field else ''}{first['msg'].removeprefix('Value error, ')}"


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text in every process."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def file_safe(name: str) -> str:
    """The name with `_` for what a file's name should not have."""
    return re.sub(r"[^\w.=+-]", "_", name, flags=re.ASCII)


def digest(value: Any, length: int = 8) -> str:
    """The first hex digits of the sha256 of the canonical JSON (Python's own hash() is salted per process)."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


def choose(kind: str, name: str, registry: Iterable[str]) -> None:
    """Raise UserError, with the nearest names, unless `name` is in the registry."""
    names = sorted(registry)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
        raise UserError(f"unknown {kind} {name!r}: {hint}")
