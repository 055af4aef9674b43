"""The kornia augmentation: what each transform does, and what a view depends on."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from kornia.enhance import (
    adjust_brightness_accumulative,
    adjust_contrast_with_mean_subtraction,
    adjust_saturation_with_gray_subtraction,
)
from kornia.geometry.transform import get_affine_matrix2d, get_perspective_transform, rotate, warp_perspective
from pydantic import ValidationError

from referee.contract import Augmentation
from referee.errors import OptionError
from referee.hooks import Place
from referee.plugins import discover
from referee.testing import check_augmentation
from referee_kornia import Options
from referee_kornia.augmentation import KorniaAugmentation
from referee_kornia.draws import SLOTS, draw
from referee_kornia.geometry import homography, looking_back, warp
from referee_kornia.photometry import colour_map, recolour, rectangles

OFF = {"affine_p": 0, "perspective_p": 0, "jitter_p": 0, "erase_p": 0, "noise": 0}
POCKET = {
    "rotation": 15, "translate": 0.12, "scale": 0.15, "shear": 7, "perspective": 0.24, "perspective_p": 1,
    "padding": "border", "jitter_p": 1, "brightness": 0.15, "contrast": 0.2, "saturation": 0.25,
    "channel_shift": 0.05, "hue": 0, "erase_p": 0.3, "erase_area_min": 0.006, "erase_area_max": 0.055,
    "erase_ratio": 3, "erase_value": 0.5, "noise": 0.15,
}  # fmt: skip
EVERYTHING = {**POCKET, "hue": 0.1, "flip": 0.5, "crop": 0.7, "noise_fixed": 0.2, "erase_p": 1}


def only(**options: object) -> KorniaAugmentation:
    return KorniaAugmentation(Options.model_validate({**OFF, **options}))


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def drawn(*seeds: int) -> dict[str, torch.Tensor]:
    """The draws of these seeds, as tensors."""
    return {name: torch.from_numpy(row) for name, row in draw(generators(*seeds)).items()}


def moved(seeds: range, options: Options, height: int, width: int) -> torch.Tensor:
    """The homographies of these seeds."""
    return torch.from_numpy(homography(draw(generators(*seeds)), options, height, width))


def images(n: int, height: int = 32, width: int = 32, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Smooth colourful pictures: sums of random waves, in [0.05, 0.95]."""
    g = torch.Generator().manual_seed(n)
    coarse = torch.rand(n, 3, 5, 5, generator=g, dtype=dtype)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    return smooth.clamp(0.05, 0.95)


def corner_dot(size: int = 33) -> torch.Tensor:
    """Black but for a bright blob in the upper left quarter, off the diagonal."""
    x = torch.zeros(1, 3, size, size)
    x[..., 6:9, 10:13] = 1
    return x


def centre(x: torch.Tensor) -> tuple[float, float]:
    mass = x[0, 0] / x[0, 0].sum()
    line = torch.arange(x.shape[-1], dtype=x.dtype)
    return float((mass.sum(0) * line).sum()), float((mass.sum(1) * line).sum())


@pytest.mark.parametrize("options", [{}, OFF, POCKET, EVERYTHING], ids=["default", "off", "pocket", "everything"])
def test_it_passes_the_checks_of_an_augmentation(options: dict[str, object]) -> None:
    found = check_augmentation(discover().find("augmentation", "kornia"), options)
    assert {outcome.check for outcome in found if outcome.status != "ok"} == {"is_frozen"}  # it has no model


@pytest.mark.parametrize("options", [{}, POCKET, EVERYTHING], ids=["paper", "pocket", "everything"])
def test_same_seeds_give_the_same_views(options: dict[str, object]) -> None:
    aug, x = KorniaAugmentation(Options.model_validate(options)), images(4)
    first = aug(x, generators(1, 2, 3, 4))
    assert torch.equal(first, aug(x, generators(1, 2, 3, 4)))
    assert first.shape == x.shape
    assert first.isfinite().all()
    assert not torch.equal(first, aug(x, generators(1, 2, 3, 5)))


@pytest.mark.parametrize("options", [{}, POCKET, EVERYTHING], ids=["paper", "pocket", "everything"])
def test_a_view_is_the_same_whatever_it_is_batched_with(options: dict[str, object]) -> None:
    aug, x = KorniaAugmentation(Options.model_validate(options)), images(5)
    together = aug(x, generators(*range(5)))
    for b in range(5):
        alone = aug(x[b : b + 1], generators(b))
        torch.testing.assert_close(alone[0], together[b], rtol=0, atol=2e-6)


def test_the_global_random_state_is_neither_read_nor_changed() -> None:
    aug, x = KorniaAugmentation(Options.model_validate(EVERYTHING)), images(2)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = aug(x, generators(1, 2))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(99)
    assert torch.equal(first, aug(x, generators(1, 2)))


def test_turning_one_transform_off_leaves_the_others_as_they_were() -> None:
    x = images(3)
    plain = only(affine_p=1, rotation=30, noise=0.1)(x, generators(1, 2, 3))
    erased = only(affine_p=1, rotation=30, noise=0.1, erase_p=1)(x, generators(1, 2, 3))
    same = (plain == erased).all(1)
    assert 0.5 < same.float().mean() < 0.95


def test_all_off_gives_the_image_itself() -> None:
    x = images(2)
    assert torch.equal(only()(x, generators(0, 1)), x)
    assert only()(x[:0], []).shape == (0, 3, 32, 32)


def test_rotation_is_kornias_rotation() -> None:
    x, options = images(1), Options.model_validate({**OFF, "affine_p": 1, "rotation": 90, "translate": 0})
    angle = (2 * drawn(4)["rotation"] - 1) * 90
    view = KorniaAugmentation(options)(x, generators(4))
    # get_affine_matrix2d turns clockwise where rotate() turns the other way
    torch.testing.assert_close(view, rotate(x, -angle.float()), rtol=0, atol=1e-4)
    assert abs(float(angle)) > 5


def test_the_homographies_are_kornias() -> None:
    """Affine and perspective together, on an image that is wider than high, against kornia's general functions."""
    n, height, width = 50, 20, 40
    right, bottom = width - 1, height - 1
    options = Options.model_validate({**OFF, **POCKET, "affine_p": 1})
    g = {name: 2 * row - 1 for name, row in drawn(*range(n)).items()}
    affine = get_affine_matrix2d(
        torch.stack([g["shift_x"] * 0.12 * width, g["shift_y"] * 0.12 * height], 1),
        torch.tensor([[right / 2, bottom / 2]]).double().expand(n, 2),
        (1 + g["scale"] * 0.15)[:, None].expand(n, 2),
        g["rotation"] * 15,
        (g["shear"] * 7).deg2rad(),
    )
    corners = torch.tensor([[0, 0], [right, 0], [right, bottom], [0, bottom]]).double().expand(n, 4, 2)
    inwards = torch.tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]]).double()
    u = torch.stack([torch.stack([g[f"x{i}"], g[f"y{i}"]], 1) for i in range(4)], 1) / 2 + 0.5
    reach = torch.tensor([width, height]).double() * 0.24 / 2
    want = get_perspective_transform(corners, corners + u * inwards * reach) @ affine
    torch.testing.assert_close(moved(range(n), options, height, width), want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_the_warp_is_kornias(padding: str) -> None:
    """To float32's rounding of coordinates, which ours spares half of: its inverse is taken in float64."""
    n, height, width = 20, 24, 40
    matrix = homography(draw(generators(*range(n))), Options.model_validate(EVERYTHING), height, width)
    x, there = images(n, height, width), torch.from_numpy(matrix)
    back = torch.from_numpy(looking_back(matrix, height, width))
    want = warp_perspective(x.double(), there, (height, width), padding_mode=padding)
    torch.testing.assert_close(warp(x.double(), back, padding), want, rtol=0, atol=1e-9)
    torch.testing.assert_close(warp(x, back.float(), padding), want.float(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1)])
def test_a_line_and_a_single_pixel_are_warped_too(size: tuple[int, int]) -> None:
    view = only(affine_p=1, rotation=30, padding="border")(
        images(3, 8, 8)[..., : size[0], : size[1]], generators(1, 2, 3)
    )
    assert view.shape == (3, 3, *size)
    assert view.isfinite().all()


def test_the_homography_moves_pixels_as_promised() -> None:
    """Shift, flip and scale, read off where a blob lands; on an image that is wider than high."""
    x0, y0 = centre(corner_dot())
    g = drawn(3)
    x, y = centre(only(affine_p=1, rotation=0, translate=0.2)(corner_dot(), generators(3)))
    assert x == pytest.approx(x0 + (2 * float(g["shift_x"]) - 1) * 0.2 * 33, abs=1e-3)
    assert y == pytest.approx(y0 + (2 * float(g["shift_y"]) - 1) * 0.2 * 33, abs=1e-3)
    x, y = centre(only(flip=1)(corner_dot(), generators(3)))
    assert (x, y) == (pytest.approx(32 - x0, abs=1e-3), pytest.approx(y0, abs=1e-3))
    x, y = centre(only(affine_p=1, rotation=0, translate=0, scale=0.5)(corner_dot(), generators(3)))
    factor = 1 + (2 * float(g["scale"]) - 1) * 0.5
    assert x - 16 == pytest.approx((x0 - 16) * factor, abs=0.1)

    options = Options.model_validate({**OFF, "perspective": 0.4, "perspective_p": 1})
    matrix = moved(range(3, 4), options, 20, 40)[0]
    for corner, start in enumerate(torch.tensor([[0.0, 0], [39, 0], [39, 19], [0, 19]]).double()):
        corner_in_view = matrix @ torch.cat([start, start.new_ones(1)])
        offset = corner_in_view[:2] / corner_in_view[2] - start
        reach = torch.stack([g[f"x{corner}"] * 8, g[f"y{corner}"] * 4], dim=1)[0]
        torch.testing.assert_close(offset.abs(), reach)
        assert (offset * (torch.tensor([19.5, 9.5]) - start) > 0).all(), "corners move inwards"


def test_crop_keeps_a_window_of_the_promised_area_inside_the_image() -> None:
    options = Options.model_validate({**OFF, "crop": 0.3})
    matrices = moved(range(200), options, 20, 40)
    ends = torch.tensor([[0.0, 39.0], [0, 19], [1, 1]]).double()
    window = torch.linalg.inv(matrices) @ ends
    assert window[:, :2].min() >= -1e-9
    assert (window[:, 0].max(), window[:, 1].max()) <= (39 + 1e-9, 19 + 1e-9)
    area = (window[:, 0, 1] - window[:, 0, 0]) * (window[:, 1, 1] - window[:, 1, 0]) / (39 * 19)
    assert 0.3 <= area.min() < 0.35
    assert 0.95 < area.max() <= 1


@pytest.mark.parametrize(("padding", "corner"), [("zeros", 0.0), ("border", 0.7), ("reflection", 0.7)])
def test_padding(padding: str, corner: float) -> None:
    flat = torch.full((8, 3, 32, 32), 0.7)
    views = only(affine_p=1, rotation=30, padding=padding)(flat, generators(*range(8)))
    assert views[..., 16, 16].sub(0.7).abs().max() < 1e-5
    least = views.amin((1, 2, 3)).min()
    assert least == pytest.approx(corner, abs=1e-5)


def test_jitter_is_kornias_brightness_contrast_saturation_in_one() -> None:
    x = images(6) * 0.4 + 0.3  # nothing clips, so kornia's clip after each makes no difference
    options = Options.model_validate(
        {**OFF, "jitter_p": 1, "brightness": 0.1, "contrast": 0.2, "saturation": 0.3, "hue": 0}
    )
    seeds = generators(*range(6))
    g = {name: value.float() for name, value in drawn(*range(6)).items()}
    want = adjust_brightness_accumulative(x, 1 + (2 * g["brightness"] - 1) * 0.1)
    want = adjust_contrast_with_mean_subtraction(want, 1 + (2 * g["contrast"] - 1) * 0.2)
    want = adjust_saturation_with_gray_subtraction(want, 1 + (2 * g["saturation"] - 1) * 0.3)
    torch.testing.assert_close(KorniaAugmentation(options)(x, seeds), want, rtol=0, atol=1e-6)


def test_channel_shift_adds_to_each_channel_and_the_result_is_clipped() -> None:
    x = torch.full((50, 3, 8, 8), 0.98)
    quiet = {"jitter_p": 1, "brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}
    views = only(**quiet, channel_shift=0.05)(x, generators(*range(50)))
    assert views.max() == 1
    assert 0.93 <= views.min() < 0.935
    assert (views[:, 0] != views[:, 1]).any()


def test_hue_turns_colours_and_leaves_grey() -> None:
    grey = torch.full((4, 3, 8, 8), 0.5)
    quiet = {"jitter_p": 0.5, "brightness": 0, "contrast": 0, "saturation": 0, "hue": 0.5}
    torch.testing.assert_close(only(**quiet)(grey, generators(*range(4))), grey)
    x = images(20)
    views = only(**quiet)(x, generators(*range(20)))
    changed = (views - x).abs().amax((1, 2, 3)) > 1e-4
    assert 4 <= int(changed.sum()) <= 16
    assert torch.equal(views[~changed], x[~changed])
    torch.testing.assert_close(views.amax(1), x.amax(1))  # value (the largest channel) stays


def test_erasing_covers_the_promised_area_and_ratio() -> None:
    ones = torch.ones(400, 3, 64, 64)
    views = only(erase_p=1, erase_area_min=0.1, erase_area_max=0.3, erase_ratio=2, erase_value=0.25)(
        ones, generators(*range(400))
    )
    gone = (views == 0.25).all(1)
    assert ((views == 1).all(1) | gone).all()
    area = gone.float().mean((1, 2))
    assert 0.09 < area.min() < 0.12
    assert 0.28 < area.max() < 0.31
    assert area.mean() == pytest.approx(0.2, abs=0.01)
    wide, high = gone.any(1).sum(1), gone.any(2).sum(1)
    assert torch.equal(wide * high, gone.sum((1, 2))), "a full rectangle inside the image"
    assert 1.9 < (wide / high).max() < 2.15
    assert 1.9 < (high / wide).max() < 2.15
    cover = gone.float().mean(0)
    assert (cover.mean(0)[:32].mean() - cover.mean(0)[32:].mean()).abs() < 0.03, "left as often as right"


def test_erasing_happens_as_often_as_asked_and_pockets_rectangles_are_5_to_15_pixels() -> None:
    boxes = torch.from_numpy(rectangles(draw(generators(*range(1000))), Options.model_validate(POCKET), 64, 64))
    sides = torch.stack([boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]], dim=1)
    hit = sides.prod(1) > 0
    assert hit.float().mean() == pytest.approx(0.3, abs=0.04)
    assert int(sides[hit].min()) >= 2
    assert int(sides[hit].max()) <= 26


def test_noise_has_the_promised_strength() -> None:
    x = torch.full((200, 3, 32, 32), 0.5)
    std = (only(noise=0.1)(x, generators(*range(200))) - x).std((1, 2, 3))
    assert std.max() < 0.105
    assert std.mean() == pytest.approx(0.05, abs=0.006)
    fixed = (only(noise_fixed=0.2)(x, generators(*range(200))) - x).std((1, 2, 3))
    assert fixed.mean() == pytest.approx(0.2, abs=0.002)
    both = (only(noise=0.1, noise_fixed=0.2)(x, generators(*range(200))) - x).var((1, 2, 3))
    torch.testing.assert_close(both, std.square() + 0.04, rtol=0.1, atol=0)


def test_probabilities_are_kept() -> None:
    options = Options.model_validate({"affine_p": 0.25, "perspective_p": 0, "jitter_p": 0.6})
    g = draw(generators(*range(2000)))
    eye = torch.eye(3, dtype=torch.float64)
    turned = (moved(range(2000), options, 32, 32) - eye).abs().amax((1, 2)) > 1e-9
    assert turned.float().mean() == pytest.approx(0.25, abs=0.03)
    recoloured = (torch.from_numpy(colour_map(g, options)[0]) - eye).abs().amax((1, 2)) > 1e-9
    assert recoloured.float().mean() == pytest.approx(0.6, abs=0.04)
    assert len(g) == len(SLOTS)


@pytest.mark.parametrize(
    "options",
    [{}, POCKET, EVERYTHING, {"padding": "reflection"}],
    ids=["paper", "pocket", "everything", "reflection"],
)
def test_gradient_against_finite_differences(options: dict[str, object]) -> None:
    """Along random directions, float64; the images stay away from the clip's and the hue's kinks."""
    aug = KorniaAugmentation(Options.model_validate(options))
    x = (images(3, 12, 16, torch.float64) * 0.5 + 0.25).requires_grad_()
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)

    def value(image: torch.Tensor) -> torch.Tensor:
        return (aug(image, generators(5, 6, 7)) * weight).sum()

    (gradient,) = torch.autograd.grad(value(x), x)
    for seed in range(5):
        direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
        step = 1e-6 * direction
        with torch.no_grad():
            slope = (value(x + step) - value(x - step)) / 2e-6
        torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-5, atol=1e-6)


def test_gradient_is_finite_on_black_white_and_grey() -> None:
    x = torch.stack([torch.full((3, 16, 16), value) for value in (0.0, 0.5, 1.0)]).requires_grad_()
    views = KorniaAugmentation(Options(jitter_p=1))(x, generators(1, 2, 3))
    views.square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_half_precision_goes_in_and_out() -> None:
    x = images(2)
    full = KorniaAugmentation(Options(noise=0))(x, generators(1, 2))
    half = KorniaAugmentation(Options(noise=0))(x.bfloat16(), generators(1, 2))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), full, rtol=0, atol=0.02)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_only_the_noise_differs_and_it_too_is_the_same_in_any_batch() -> None:
    x = images(4)
    quiet = KorniaAugmentation(Options.model_validate({**EVERYTHING, "noise": 0, "noise_fixed": 0}))
    here, there = (quiet(x.to(device), generators(*range(4))) for device in ("cpu", "cuda"))
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-4)
    noisy = KorniaAugmentation(Options.model_validate(EVERYTHING))
    together = noisy(x.cuda(), generators(*range(4)))
    torch.testing.assert_close(noisy(x[2:3].cuda(), generators(2))[0], together[2], rtol=0, atol=1e-5)


def test_recolour_alone_is_the_identity_for_the_unit_map() -> None:
    x = images(2)
    eye = torch.eye(3).repeat(2, 1, 1)
    assert torch.equal(recolour(x, eye, torch.zeros(2, 3, 4)), x)


@pytest.mark.parametrize(
    "options",
    [
        {"rotation": -1},
        {"affine_p": 1.5},
        {"crop": 0},
        {"erase_ratio": 0.5},
        {"padding": "wrap"},
        {"rotate": 3},
        {"erase_area_min": 0.5, "erase_area_max": 0.2},
        {"noise": -0.1},
        {"noise": float("inf")},
        {"hue": 0.6},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Options.model_validate(options)


def test_one_generator_per_image() -> None:
    with pytest.raises(OptionError, match="2 images need 2 generators"):
        only()(images(2), generators(1))


def test_the_plugin_offers_it_by_name() -> None:
    spec = discover(environment={"REFEREE_LOAD_PLUGINS": "kornia"}).find("augmentation", "kornia")
    assert isinstance(spec.factory(spec.options(), Place()), Augmentation)


def test_importing_the_plugin_imports_no_torch() -> None:
    code = (
        "import sys, referee_kornia; referee_kornia.Options(); "
        "bad = {'torch', 'kornia', 'numpy'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
