"""Pictures show the numbers they were given, pixel by pixel."""

import struct
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image

from ps_vae.cli.pictures import draw_loss, draw_reconstructions, draw_samples
from ps_vae.errors import UsageError

# One image of 2 x 4 pixels, all different: 8 values from black to white.
RAMP = np.arange(8, dtype=np.float32)[None] / 7


def png_size(path: Path) -> tuple[int, int]:
    """Width and height as the file's header says (PNG specification, 11.2.2)."""
    start = path.read_bytes()[:24]
    assert start[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", start[16:])
    return width, height


def grey(path: Path) -> np.ndarray:
    """The picture's red channel, which is grey's, as 0 .. 255; [0, 0] at the top left."""
    return np.round(image.imread(path)[..., 0] * 255).astype(int)


def test_an_image_stands_upright_and_each_pixel_is_a_sharp_square(tmp_path: Path) -> None:
    path = tmp_path / "samples.png"

    draw_samples(path, RAMP, (2, 4), span=(0.0, 1.0), title="")

    # 4 pixels wide: each is 56 / 4 = 14 screen pixels; it begins 12 from the left, 32 from the top.
    pixels = grey(path)[32 : 32 + 28, 12 : 12 + 56]
    expected = np.kron(RAMP.reshape(2, 4), np.ones((14, 14))) * 255
    assert np.abs(pixels - expected).max() <= 1


def test_originals_stand_above_their_reconstructions(tmp_path: Path) -> None:
    path = tmp_path / "reconstructions.png"
    black, white = np.zeros((3, 4), np.float32), np.ones((3, 4), np.float32)

    draw_reconstructions(path, black, white, (2, 2), span=(0.0, 1.0), title="")

    # An image is 2 * 28 screen pixels high; the next one begins 4 below it. Labels take 116 on the left.
    for column in range(3):
        left = 116 + 60 * column
        assert (grey(path)[32 : 32 + 56, left : left + 56] == 0).all()
        assert (grey(path)[92 : 92 + 56, left : left + 56] == 255).all()


def test_values_outside_of_0_to_1_keep_their_contrast(tmp_path: Path) -> None:
    path = tmp_path / "samples.png"

    draw_samples(path, RAMP * 8 - 4, (2, 4), span=(-4.0, 4.0), title="")

    assert grey(path)[32, 12] == 0
    assert grey(path)[32 + 27, 12 + 55] == 255


@pytest.mark.parametrize(
    ("count", "shape", "size"),
    [
        (100, (28, 28), (12 + 10 * 60 + 12, 32 + 10 * 60 + 12)),
        (25, (28, 28), (12 + 10 * 60 + 12, 32 + 3 * 60 + 12)),
        (1, (8, 8), (360, 32 + 60 + 12)),
        (10, (64, 100), (12 + 10 * 104 + 12, 32 + 68 + 12)),
        (400, (8, 8), (12 + 20 * 60 + 12, 32 + 20 * 60 + 12)),
    ],
)
def test_a_grid_is_as_large_as_its_images(tmp_path: Path, count: int, shape: tuple[int, int], size: object) -> None:
    path = tmp_path / "samples.png"

    draw_samples(path, np.zeros((count, shape[0] * shape[1]), np.float32), shape, span=(0.0, 1.0), title="title")

    assert png_size(path) == size


def test_a_grid_that_no_file_could_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too many"):
        draw_samples(tmp_path / "s.png", np.zeros((1, 70_000), np.float32), (70_000, 1), span=(0.0, 1.0), title="")


def test_the_loss_curve_has_a_line_for_training_and_one_for_validation(tmp_path: Path) -> None:
    path, without = tmp_path / "loss.png", tmp_path / "without.png"
    training = [{"kind": "training", "version": step, "elbo": -300.0 / step} for step in range(1, 101)]
    validation = [{"kind": "validation", "version": step, "elbo": -330.0 / step} for step in (50, 100)]

    draw_loss(path, training + validation, title="runs/a")
    draw_loss(without, training, title="runs/a")

    assert png_size(path) == png_size(without) == (800, 500)
    # The second line of matplotlib's colours, orange: (1.0, 0.5, 0.05).
    orange = np.array([1.0, 0.498, 0.055])
    assert count_like(path, orange) > 100
    assert count_like(without, orange) == 0


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [{"kind": "training", "version": 1, "elbo": -3.0}],
        [{"kind": "training", "version": 1, "elbo": float("nan")}],
        [{"kind": "validation", "version": 0}],
    ],
)
def test_a_run_with_little_to_show_still_has_its_picture(tmp_path: Path, lines: list[dict[str, object]]) -> None:
    draw_loss(tmp_path / "loss.png", lines, title="runs/a")

    assert png_size(tmp_path / "loss.png") == (800, 500)


def count_like(path: Path, colour: np.ndarray) -> int:
    return int((np.abs(image.imread(path)[..., :3] - colour).max(axis=-1) < 0.02).sum())
