"""Weights go out to other libraries and come back as the same bits, or the message names the array."""

from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from gapbench.spec import Backbone, Recipe, RunSpec, Task, UserError
from gapbench.train import init_state
from gapbench.weights import export_weights, import_weights

SPEC = RunSpec(
    task=Task(dataset="digits", px=8, train_images=100),
    backbone=Backbone(width=4, stages=1, norm="batch"),
    head="flatten",
    recipe=Recipe(peak_lr=1e-2, batch=16, steps=20, eval_every=20),
    seed=0,
)


def params_of(**changed: object) -> nnx.State:
    return init_state(SPEC.model_copy(update=changed), 1, 10)[1].params


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    export_weights(params_of(), tmp_path / "net.npz")
    return tmp_path / "net.npz"


def test_weights_come_back_bit_for_bit_whatever_the_net_held_before(path: Path) -> None:
    original, other = params_of(), params_of(seed=1)
    loaded = import_weights(path, other)
    assert jax.tree.structure(loaded) == jax.tree.structure(original)
    for got, want in zip(jax.tree.leaves(loaded), jax.tree.leaves(original), strict=True):
        assert got.dtype == want.dtype
        assert np.asarray(got).tobytes() == np.asarray(want).tobytes()
    kernels = [state["backbone"]["convs"][0]["kernel"].get_value() for state in (other, original)]
    assert not np.array_equal(*kernels)  # `like` gave its shapes alone, and is as it was


def test_every_array_has_its_path_as_name_and_its_layout_as_shape(path: Path) -> None:
    shapes = {name: array.shape for name, array in arrays_of(path).items()}
    convs = {"backbone/convs/0/kernel": (3, 3, 1, 4), "backbone/convs/1/kernel": (3, 3, 4, 4)}
    rest = {f"backbone/convs/{i}/bias": (4,) for i in (0, 1)}
    norms = {f"backbone/norms/{i}/{part}": (4,) for i in (0, 1) for part in ("bias", "scale")}
    head = {"head/dense/kernel": (4 * 4 * 4, 10), "head/dense/bias": (10,)}
    assert shapes == convs | rest | norms | head


@pytest.mark.parametrize(
    ("sabotage", "message"),
    [
        (lambda a: a.pop("head/dense/bias"), "no array 'head/dense/bias'"),
        (lambda a: a.update(extra=np.zeros(3)), "unknown array 'extra'"),
        (lambda a: a.update({"head/dense/bias": np.zeros(9, np.float32)}), r"head/dense/bias is float32\[9\]"),
        (lambda a: a.update({"head/dense/bias": np.zeros(10)}), r"head/dense/bias is float64\[10\]"),
        (lambda a: a.update({"head/dense/bias": np.array([{}])}), "allow_pickle"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_the_array_named(sabotage: object, message: str, path: Path) -> None:
    arrays = arrays_of(path)
    sabotage(arrays)  # type: ignore[operator]
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=message):
        import_weights(path, params_of())


def test_the_weights_of_another_head_are_refused(path: Path) -> None:
    with pytest.raises(UserError, match=r"head/dense/kernel is float32\[64, 10\], this net has float32\[4, 10\]"):
        import_weights(path, params_of(head="gap"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"not an archive"])
def test_a_broken_file_is_named(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"net\.npz: not readable"):
        import_weights(path, params_of())


def test_a_lone_array_and_a_missing_file_are_named(path: Path) -> None:
    np.save(path.with_name("lone.npy"), np.zeros(3))
    for wrong in ("lone.npy", "missing.npz"):
        with pytest.raises(UserError, match=f"{wrong}: not readable"):
            import_weights(path.with_name(wrong), params_of())
