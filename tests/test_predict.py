"""gapbench predict: a kept net on images of a user's own, of any size and format, and what is said where it cannot."""

import re
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from gapbench import cli
from gapbench.cells import train_record
from gapbench.data.formats import read_image
from gapbench.nets import folder_of, load_net
from gapbench.predict import overlay, predict
from gapbench.records import load_record, write_record
from gapbench.spec import Audit, Backbone, Recipe, RunSpec, Task


def run_of(out: Path, head: str) -> Path:
    """A run of digits, its net kept."""
    spec = RunSpec(
        task=Task(dataset="digits", px=8, train_images=100, val_images=40, curve_images=20),
        backbone=Backbone(width=4, stages=1),
        head=head,
        recipe=Recipe(peak_lr=1e-2, batch=20, steps=4, eval_every=2),
        seed=0,
        audit=Audit(shifts=(1,)),
    )
    with jax.numpy_dtype_promotion("standard"):  # which optax's schedule needs
        write_record(out, *train_record(spec, out))
    return out / "records" / f"{spec.run_id}.json"


@pytest.fixture(scope="module")
def gap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(tmp_path_factory.mktemp("gap"), "gap")


@pytest.fixture(scope="module")
def flatten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(tmp_path_factory.mktemp("flatten"), "flatten")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 21, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.webp")
    return tmp_path / "photo.webp"


@pytest.mark.parametrize("adapter", ["resize", "none"])
def test_a_photo_of_any_size_gets_its_classes_and_an_overlay(
    gap: Path, photo: Path, adapter: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["predict", str(gap), str(photo), "--adapter", adapter, "--top", "2"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert told.out.count("%") == 2
    with Image.open(photo.with_name("photo-evidence.png")) as made:
        assert made.size == (13 * 21, 13 * 21)  # the first multiple above 256
    assert told.out.endswith(f"-> {photo.with_name('photo-evidence.png')}\n")


@pytest.mark.parametrize("adapter", ["resize", "pool", "interpolate"])
def test_flatten_takes_it_with_an_adapter(flatten: Path, photo: Path, adapter: str, tmp_path: Path) -> None:
    assert cli.main(["predict", str(flatten), str(photo), "--adapter", adapter, "--out", str(tmp_path / "new")]) == 0
    assert (tmp_path / "new" / "photo-evidence.png").is_file()


def test_a_map_that_does_not_explain_the_whole_logit_says_so(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["predict", str(run_of(tmp_path, "gap_mlp")), str(photo)]) == 0
    assert re.search(r"the map and the bias leave \S+ unexplained \(head 'gap_mlp', float32\)", capsys.readouterr().err)


def test_a_head_that_makes_maps_of_its_own_is_explained_by_those(tmp_path: Path) -> None:
    path = run_of(tmp_path, "gap_conv:relu")
    record = load_record(path)
    net = load_net(folder_of(path), record.spec)
    assert net is not None
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 1), dtype=np.uint8)
    said = predict(net, image, "none")
    assert abs(said.rest) < 1e-5  # biases lie inside its maps, and before the average
    assert said.evidence.min() >= 0.0
    assert said.logit > 0


def test_a_net_that_was_not_kept_is_trained_again_to_the_same_answers(
    gap: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "records" / gap.name
    record.parent.mkdir()
    record.write_bytes(gap.read_bytes())
    said = []
    for path in (gap, record):
        assert cli.main(["predict", str(path), str(photo), "--out", str(tmp_path)]) == 0
        told = capsys.readouterr()
        said.append(told.out)
    assert said[0] == said[1]
    assert "training it again, 4 steps" in told.err
    assert (tmp_path / "checkpoints" / gap.stem).is_dir()


def test_what_cannot_be_asked_is_one_line(
    gap: Path, flatten: Path, photo: Path, tmp_path: Path, refused: Callable[[list[str]], str]
) -> None:
    told = refused(["predict", str(flatten), str(photo), "--adapter", "none"])
    assert "head 'flatten' was built for 8 px, a map of 4×4, and 21 px make it 10×10; adapters that can: resize" in told
    assert "no such file" in refused(["predict", str(gap), str(tmp_path / "nothing.png")])
    (tmp_path / "text.png").write_text("no image")
    assert "not a readable 8-bit PNG, JPEG" in refused(["predict", str(gap), str(tmp_path / "text.png")])
    assert "--top 0: must be at least 1" in refused(["predict", str(gap), str(photo), "--top", "0"])
    assert "name at least one image" in refused(["predict", str(gap)])
    assert "no such file" in refused(["predict", str(tmp_path / "none.json"), str(photo)])
    assert "photo.webp: not a record, which is a file RUN_ID.json" in refused(["predict", str(photo), str(photo)])


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    drawing = np.zeros((4, 4, 4), np.uint8)
    drawing[1, 1, 3] = 255  # one black pixel
    Image.fromarray(drawing).save(tmp_path / "drawing.png")
    seen = read_image(tmp_path / "drawing.png", 1)[..., 0]
    assert seen[1, 1] == 0
    assert seen.sum() == 15 * 255


def test_of_sixteen_bits_the_higher_eight_are_seen(tmp_path: Path) -> None:
    deep = np.array([[0, 255, 256], [32_768, 65_535, 511]], np.uint16)
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        np.testing.assert_array_equal(read_image(tmp_path / name, 1)[..., 0], [[0, 0, 1], [128, 255, 1]])
    assert read_image(tmp_path / "deep.png", 3).shape == (2, 3, 3)


def test_the_overlay_is_brightest_where_the_evidence_is() -> None:
    black = np.zeros((8, 8, 1), np.uint8)
    made = overlay(black, np.array([[0.0, 1.0], [0.0, 0.0]]))  # as of a net that saw 2×2 px
    assert made.shape == (256, 256, 3)
    assert made[0, -1].sum() > made[-1, 0].sum()
    assert (made[-1, 0] == 0).all()


def test_a_small_image_is_shown_enlarged_by_whole_pixels_and_a_large_one_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 256, (100, 120, 1), dtype=np.uint8)
    made = overlay(image, np.zeros((4, 4)))  # without contrast, without colour
    np.testing.assert_array_equal(made[::3, ::3, 0], image[:, 10:110, 0])
    assert overlay(np.zeros((300, 300, 3), np.uint8), np.zeros((4, 4))).shape == (300, 300, 3)
