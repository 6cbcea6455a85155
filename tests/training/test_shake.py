"""Motion blur in batches on any device (degradations/shake.py), and films to measure on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from degradations import films
from degradations.images import quantise, to_encoded, to_linear
from degradations.shake import (
    CURVE,
    EXTENTS,
    HARMONICS,
    Curves,
    Sample,
    displacements,
    jpeg,
    look_up,
    random_curves,
    random_sample,
    read_responses,
    shake,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat
from skimage import data

seeds = st.integers(0, 2**32)
few = settings(max_examples=20, deadline=None)
MARGIN = 16
EVEN = np.linspace(0, 1, CURVE)


def crops(count: int = 1, size: int = 80) -> torch.Tensor:
    """Detailed parts of a photo, uint8 ``(N, 3, size, size)``."""
    image = data.astronaut()
    parts = [image[150 : 150 + size, 100 + 60 * n : 100 + 60 * n + size] for n in range(count)]
    return torch.from_numpy(np.stack(parts)).permute(0, 3, 1, 2)


def inside(images: torch.Tensor) -> torch.Tensor:
    return images[..., MARGIN:-MARGIN, MARGIN:-MARGIN] / 255


def plain(seed: int, extent: float, **changes: object) -> Sample:
    """A moving camera and nothing else, encoded values averaged."""
    sample = random_sample(np.random.default_rng(seed), extent=extent)
    calm: dict[str, object] = dict.fromkeys(("thing", "soft", "video", "quality"))
    calm |= {"noise": 0.0, "gain": 0.0}
    return replace(sample, response=EVEN, **{**calm, **changes})


def straight(down: float = 0.0, right: float = 0.0) -> Curves:
    """An even motion over a number of pixels."""
    coefficients = np.zeros((5, 1 + 2 * HARMONICS))
    coefficients[:2, 0] = down / 2, right / 2
    return Curves(coefficients, float(np.hypot(down, right)))


def blur(images: torch.Tensor, *samples: Sample) -> tuple[torch.Tensor, torch.Tensor]:
    return shake(images, list(samples), torch.Generator().manual_seed(0), MARGIN)


@few
@given(seed=seeds, count=st.integers(1, 4))
def test_pairs_are_what_files_hold(seed: int, count: int) -> None:
    samples = [random_sample(np.random.default_rng([seed, n])) for n in range(count)]
    for images in blur(crops(count), *samples):
        assert images.shape == (count, 3, 48, 48)
        assert images.dtype == torch.float32
        assert images.min() >= 0
        assert images.max() <= 1
        torch.testing.assert_close(images * 255, (images * 255).round(), atol=1e-3, rtol=0)


def test_without_motion_the_photo_comes_back_as_it_is() -> None:
    for seed in range(8):
        sample = random_sample(np.random.default_rng(seed), extent=0)
        blurred, sharp = blur(crops(), replace(sample, video=None, soft=None))
        assert torch.equal(blurred, sharp)
        torch.testing.assert_close(sharp, inside(crops()))


@few
@given(seed=seeds, extent=st.floats(0.2, 40), level=st.integers(0, 253))
def test_flat_images_stay_flat(seed: int, extent: float, level: int) -> None:
    flat = torch.full((1, 3, 80, 80), level, dtype=torch.uint8)
    sample = random_sample(np.random.default_rng(seed), extent=extent)
    blurred, sharp = blur(flat, replace(sample, noise=0.0))
    torch.testing.assert_close(sharp, inside(flat), atol=2.01 / 255, rtol=0)
    torch.testing.assert_close(blurred, inside(flat), atol=2.01 / 255, rtol=0)


@few
@given(seed=seeds, extent=st.floats(1, 40))
def test_paths_have_the_extent_asked_for(seed: int, extent: float) -> None:
    curves = random_curves(np.random.default_rng(seed), extent)
    times = np.linspace(-1, 1, 65)[None]
    rows = displacements([curves], times, np.zeros(1), 3, torch.device("cpu"))
    path = rows[0, :, 1, :2]  # of the row in the middle
    path = path - path.mean(0)
    assert float(path.norm(dim=1).max()) == pytest.approx(extent / 2, rel=1e-3)


@few
@given(seed=seeds, extent=st.floats(1, 40), rolling=st.floats(-0.5, 0.5))
def test_the_crop_is_what_is_seen_on_the_mean(seed: int, extent: float, rolling: float) -> None:
    """With any shutter, every row and every column is in its place."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(-1, 1, (1, 12)))
    curves = random_curves(rng, extent)
    rows = displacements([curves], times, np.array([rolling]), 48, torch.device("cpu"))
    assert rows.mean(1).abs().max() < 1e-5
    assert rows.abs().max() > 0.1


@pytest.mark.parametrize("seed", range(6))
def test_a_point_is_at_the_mean_of_its_blur(seed: int) -> None:
    point = torch.zeros(1, 3, 101, 101, dtype=torch.uint8)
    point[..., 49:52, 49:52] = 250
    sample = plain(seed, 8, rolling=0.0)
    blurred, sharp = blur(point, replace(sample, relief=(0.0, sample.relief[1])))
    steps = torch.arange(69.0)
    for axis in (0, 1):
        places = [
            float((image[0, 1].sum(axis) * steps).sum() / image[0, 1].sum())
            for image in (blurred, sharp)
        ]
        assert places[0] == pytest.approx(places[1], abs=0.4)


@pytest.mark.parametrize(("down", "right"), [(6, 0), (0, 9), (4, -5)])
def test_an_even_motion_is_a_line_of_light(down: float, right: float) -> None:
    point = torch.full((1, 3, 81, 81), 50, dtype=torch.uint8)
    point[..., 39:42, 39:42] = 250
    still = plain(1, 1, camera=straight(down, right), rolling=0.0, duty=(9, 1.0))
    still = replace(still, relief=(0.0, still.relief[1]))
    light, sharp = (images[0, 1] * 255 - 50 for images in blur(point, still))
    assert float(sharp.sum()) == pytest.approx(9 * 200)
    assert float(light.sum()) == pytest.approx(9 * 200, rel=0.05)
    steps = torch.arange(49.0) - 24
    for axis, length in ((1, down), (0, right)):
        across = light.sum(axis)
        assert float((across * steps).sum() / light.sum()) == pytest.approx(0, abs=0.4)
        spread = float((across * steps**2).sum() / light.sum())
        assert spread == pytest.approx(2 / 3 + length**2 / 12, abs=1)


def test_rows_are_read_one_after_the_other() -> None:
    """The path of a halting camera differs between the first row and the last."""
    curves = random_curves(np.random.default_rng(3), 20)
    coefficients = curves.coefficients.copy()
    coefficients[2:] = 0  # a shift alone
    times = np.linspace(-1, 1, 9)[None]

    def differ(rolling: float) -> bool:
        rows = displacements(
            [Curves(coefficients, 1.0)], times, np.array([rolling]), 48, torch.device("cpu")
        )
        return bool((rows[0, :, 0] - rows[0, :, -1]).abs().max() > 0.5)

    assert differ(0.5)
    assert not differ(0.0)


def test_light_is_averaged_as_the_response_says() -> None:
    edge = torch.zeros(1, 3, 80, 80, dtype=torch.uint8)
    edge[..., 40:] = 240
    sample = plain(2, 12, camera=straight(right=16), rolling=0.0)
    srgb = np.asarray(to_encoded(EVEN.astype(np.float32)), float)
    in_code, _ = blur(edge, sample)
    in_light, _ = blur(edge, replace(sample, response=srgb))
    lamp = torch.where(edge > 0, 255, edge).to(torch.uint8)
    as_white, _ = blur(lamp, replace(sample, response=srgb))
    brighter, _ = blur(lamp, replace(sample, response=srgb, gain=4.0))
    assert in_code.mean() + 0.02 < in_light.mean() < as_white.mean()
    assert as_white.mean() + 0.02 < brighter.mean()


def test_a_thing_in_front_hides_what_is_behind() -> None:
    """A white thing before a black scene: sharp it has an edge, moved it is grey there only."""
    images = torch.zeros(2, 3, 80, 80, dtype=torch.uint8)
    images[0] = 200
    drawn = [random_sample(np.random.default_rng(s), extent=8) for s in range(60)]
    thing = next(sample.thing for sample in drawn if sample.thing)
    rest = straight()
    before, after = plain(1, 0), plain(2, 8, camera=rest, thing=(rest, thing[1], 0.0))
    blurred, sharp = blur(images, before, after)
    torch.testing.assert_close(blurred[1], sharp[1], atol=1.01 / 255, rtol=0)
    assert 0.05 < float((sharp[1] > 0.7).float().mean()) < 0.95
    moving = replace(after, thing=(straight(right=8), thing[1], 0.0))
    blurred, again = blur(images, before, moving)
    torch.testing.assert_close(again, sharp)
    changed = (blurred[1] - sharp[1]).abs() > 0.05
    assert 0.005 < float(changed.float().mean()) < 0.6
    assert blurred[1].max() < 210 / 255  # the cubic overshoots


def test_what_is_out_of_focus_stays_so() -> None:
    """In the sharp image, too, and the more so the larger the disk."""
    detail = []
    for radius in (0.0, 2.0, 6.0):
        sample = plain(1, 1, soft=(radius, None, 0.0) if radius else None)
        blurred, sharp = blur(crops(), sample)
        detail.append(float(sharp.diff().abs().mean()))
        light = [float((images**2.2).mean()) for images in (sharp, inside(crops()))]
        assert light[0] == pytest.approx(light[1], abs=0.02)
    assert detail[0] > 1.5 * detail[1] > 2 * detail[2]
    assert (blurred - sharp).abs().mean() < 0.01


def test_some_places_are_out_of_focus_and_others_are_not() -> None:
    drawn = [random_sample(np.random.default_rng(seed), extent=5).soft for seed in range(60)]
    places = [soft[1] for soft in drawn if soft and soft[1]]
    assert 5 < len(places) < 20
    shares = []
    for place in places:
        _, sharp = blur(crops(), plain(1, 1, soft=(4.0, place, 0.0)))
        shares.append(float(((sharp - inside(crops())).abs() > 0.004).float().mean()))
    assert min(shares) < 0.4 < 0.6 < max(shares)


def test_a_sample_does_not_depend_on_those_beside_it() -> None:
    samples = [plain(seed, extent) for seed, extent in ((1, 5), (2, 30), (3, 0), (4, 5.5))]
    together, _ = blur(crops(4), *samples)
    for n, sample in enumerate(samples):
        alone, _ = blur(crops(4)[n : n + 1], sample)
        torch.testing.assert_close(together[n : n + 1], alone, atol=1.01 / 255, rtol=0)


def test_the_seed_alone_decides() -> None:
    def once() -> torch.Tensor:
        samples = [random_sample(np.random.default_rng([9, n])) for n in range(3)]
        return blur(crops(3), *samples)[0]

    torch.testing.assert_close(once(), once(), atol=0, rtol=0)


def test_some_samples_are_sharp_and_most_are_not() -> None:
    still = [random_sample(np.random.default_rng(seed)).still for seed in range(400)]
    assert np.mean(still) == pytest.approx(EXTENTS[0][0], abs=0.03)
    assert sum(share for share, _ in EXTENTS) == pytest.approx(1)


@pytest.mark.parametrize("quality", [60, 85, 95])
def test_jpeg_is_that_of_the_usual_library(quality: int) -> None:
    image = crops(1, 96).float() / 255
    ours = jpeg(image, torch.tensor([float(quality)]))
    pixels = crops(1, 96)[0].permute(1, 2, 0).numpy()[..., ::-1]
    _, file = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1] / np.float32(255)
    theirs = torch.from_numpy(decoded).permute(2, 0, 1)[None]
    # They interpolate chroma a little differently.
    loss, differ = (float((x - theirs).square().mean()) for x in (image, ours))
    assert differ < 0.2 * loss


def test_the_grid_of_jpeg_blocks_moves() -> None:
    image = crops(1, 50).float() / 255
    low = torch.tensor([40.0])
    here, there = jpeg(image, low), jpeg(image, low, (3, 5))
    assert here.shape == there.shape == image.shape
    assert not torch.equal(here, there)
    assert (here - there).abs().mean() < 0.03


@few
@given(value=st.floats(0, 1), power=st.floats(0.4, 2.5))
def test_curves_are_interpolated(value: float, power: float) -> None:
    curve = torch.tensor(EVEN**power, dtype=torch.float32)[None]
    found = look_up(torch.full((1, 3, 2, 2), value), curve)
    expected = np.interp(value, EVEN, EVEN**power)
    torch.testing.assert_close(found, torch.full_like(found, expected), atol=1e-4, rtol=0)


def test_measured_responses_are_parted(tmp_path: Path) -> None:
    """Images for measuring are not used for training."""
    light = np.linspace(0, 1, 512)
    powers = [0.4, 0.45, 0.5, 0.55, 0.6, 0.65]
    values = np.stack([light**power for power in powers])
    savemat(tmp_path / "201_CRF_data.mat", {"I": np.stack([light] * 6), "B": values})
    for curves, expected in (
        (read_responses(tmp_path), [0.4, 0.45, 0.55, 0.6]),
        (read_responses(tmp_path, held_out=True), [0.5, 0.65]),
    ):
        middle = EVEN[CURVE // 2] ** np.array(expected)
        np.testing.assert_allclose(curves[:, CURVE // 2], middle, atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_same() -> None:
    samples = [plain(seed, extent) for seed, extent in ((1, 5), (2, 30), (3, 0), (4, 1))]
    here, _ = blur(crops(4), *samples)
    there, _ = shake(crops(4).cuda(), samples, torch.Generator("cuda").manual_seed(0), MARGIN)
    torch.testing.assert_close(there.cpu(), here, atol=1.01 / 255, rtol=0)


# --- Films ---


def psnr(image: np.ndarray, clean: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(image - clean).mean()))


def clean_photo() -> np.ndarray:
    return quantise(data.astronaut()[100:228, 150:278] / np.float32(255))


def test_a_film_at_rest_is_the_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(films, "QUALITY", (100, 101))
    still = films.filmed(clean_photo(), np.random.default_rng(1), extent=1e-6)
    assert psnr(still, clean_photo()) > 48


@pytest.mark.parametrize("thing", [False, True])
def test_the_farther_the_camera_moves_the_more_is_lost(thing: bool) -> None:
    clean = clean_photo()
    shots = [
        films.filmed(clean, np.random.default_rng(2), extent, thing=thing) for extent in (1, 4, 12)
    ]
    near, middle, far = (psnr(shot, clean) for shot in shots)
    assert near > middle + 2 > far + 4
    for shot in shots:
        np.testing.assert_allclose(255 * shot, np.rint(255 * shot), atol=1e-3)
        # Light is neither made nor lost.
        light = to_linear(shot)[24:-24, 24:-24].mean()
        assert light == pytest.approx(to_linear(clean)[24:-24, 24:-24].mean(), rel=0.1)


@few
@given(seed=seeds)
def test_a_filmed_point_is_at_the_mean_of_its_blur(seed: int) -> None:
    clean = np.zeros((96, 96, 3), np.float32)
    clean[46:50, 46:50] = 1
    light = to_linear(films.filmed(clean, np.random.default_rng(seed), extent=12))
    place = [
        float((light.sum(axis=(axis, 2)) * np.arange(96)).sum() / light.sum()) for axis in (0, 1)
    ]
    assert place == pytest.approx([47.5, 47.5], abs=1)
