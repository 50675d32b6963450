"""Names of heads and backbones: what is ours stays ours, and a file may be run twice."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flax import nnx

from gapbench.cells import import_file
from gapbench.models import heads, register_backbone, register_head
from gapbench.models.backbones import Plain
from gapbench.models.registry import ARGUMENTS, BACKBONES, HEADS
from gapbench.spec import UserError
from gapbench.sweep import find_experiment

FILE = """
from flax import nnx
from gapbench.models import register_backbone, register_head
from gapbench.models.backbones import Plain
from gapbench.models.heads import Gap


@register_head("{name}")
class Mine(Gap):
    pass


@register_backbone("mine")
class MinePlain(Plain):
    pass
"""


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    registries: tuple[dict[str, Any], ...] = (HEADS, ARGUMENTS, BACKBONES)
    before = [dict(registry) for registry in registries]
    yield
    for registry, old in zip(registries, before, strict=True):
        registry.clear()
        registry.update(old)


def test_a_file_that_registers_may_be_run_again_and_another_file_replaces_its_name(tmp_path: Path) -> None:
    paths = [tmp_path / "one.py", tmp_path / "one.py", tmp_path / "two.py"]
    made = []
    for path in paths:
        path.write_text(FILE.format(name="mine"))
        module = import_file(path)
        assert HEADS["mine"] is module.Mine
        assert BACKBONES["mine"] is module.MinePlain
        made.append(module.Mine)
    assert len(set(made)) == 3


def test_a_name_of_ours_is_refused_in_one_line_and_keeps_its_class(tmp_path: Path) -> None:
    path = tmp_path / "greedy.py"
    path.write_text(FILE.format(name="gap"))
    with pytest.raises(UserError, match=r"^head 'gap' is gapbench's own: register yours under another name$"):
        find_experiment(str(path))
    assert HEADS["gap"] is heads.Gap
    with pytest.raises(UserError, match=r"^backbone 'plain' is gapbench's own"):
        register_backbone("plain")(heads.Gap)
    assert BACKBONES["plain"] is Plain


def test_registering_gives_the_class_back() -> None:
    class Mine(nnx.Module):
        pass

    maker: Any = register_head("mine")(Mine)
    assert maker is Mine
