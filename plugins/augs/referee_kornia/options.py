"""What can be set about the augmentations, and the values that are used if nothing is.

The paper names five transforms and gives no values; the defaults here are those of its authors' released
code, but for three things. Its ``translate=0.1`` is read by kornia as "vertical only": here it goes both
ways. Its second noise, of standard deviation 0.2 on every view, is ``noise_fixed`` and off. Its erased
rectangle is the same in all views of a batch; here every view has its own.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, lt=1)]


class Options(BaseModel):
    """Ranges of the random transforms; an amount of 0 (or a probability of 0) turns one off.

    Lengths are fractions of the image's side, brightness-like factors are 1 +- the amount, probabilities
    (``_p``) are per view.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    affine_p: Share = Field(default=1.0, description="how often a view is rotated, shifted, scaled and sheared")
    rotation: float = Field(default=30.0, ge=0, le=180, description="degrees, either way")
    translate: Share = Field(default=0.1, description="shift, as a fraction of the side, each way on both axes")
    scale: Amount = Field(default=0.0, description="size, 1 +- this")
    shear: float = Field(default=0.0, ge=0, lt=90, description="degrees along x, either way")

    perspective_p: Share = Field(default=0.4, description="how often a view is seen from aside")
    perspective: Amount = Field(default=0.2, description="corners move inwards by up to half this share of a side")

    flip: Share = Field(default=0.0, description="how often a view is mirrored; harms 'left' and 'right', so off")
    crop: float = Field(default=1.0, gt=0, le=1, description="smallest area kept by a crop; loses objects, so 1")
    padding: Literal["zeros", "border", "reflection"] = Field(default="zeros", description="what lies outside")

    jitter_p: Share = Field(default=0.5, description="how often a view's colours change")
    brightness: Share = Field(default=0.1, description="factor, 1 +- this")
    contrast: Share = Field(default=0.1, description="factor about the mean grey, 1 +- this")
    saturation: Share = Field(default=0.1, description="factor about each pixel's grey, 1 +- this")
    channel_shift: Share = Field(default=0.0, description="added to each channel on its own, +- this")
    hue: float = Field(default=0.1, ge=0, le=0.5, description="turns of the colour circle, either way")

    erase_p: Share = Field(default=1.0, description="how often a rectangle of the view is painted over")
    erase_area_min: Share = Field(default=0.1, description="its smallest share of the area")
    erase_area_max: Share = Field(default=0.4, description="its largest share of the area")
    erase_ratio: float = Field(default=3.3, ge=1, description="its longer side over its shorter, at most")
    erase_value: Share = Field(default=0.0, description="its grey, 0 black to 1 white")

    noise: float = Field(default=0.1, ge=0, description="Gaussian: standard deviation uniform in [0, this]")
    noise_fixed: float = Field(default=0.0, ge=0, description="further, of this standard deviation; released: 0.2")

    @model_validator(mode="after")
    def _ordered(self) -> Options:
        if self.erase_area_min > self.erase_area_max:
            low, high = self.erase_area_min, self.erase_area_max
            raise ValueError(f"erase_area_min {low} is above erase_area_max {high}")
        return self

    @property
    def warps(self) -> bool:
        """Whether any geometric transform can happen."""
        affine = self.affine_p and (self.rotation or self.translate or self.scale or self.shear)
        return bool(affine or (self.perspective_p and self.perspective) or self.flip or self.crop < 1)

    @property
    def recolours(self) -> bool:
        """Whether any linear change of colour can happen."""
        amounts = self.brightness or self.contrast or self.saturation or self.channel_shift
        return bool(self.jitter_p and amounts)

    @property
    def turns_hue(self) -> bool:
        """Whether colours can move around the colour circle."""
        return bool(self.jitter_p and self.hue)

    @property
    def erases(self) -> bool:
        """Whether a rectangle can be painted over."""
        return bool(self.erase_p and self.erase_area_max)

    @property
    def adds_noise(self) -> bool:
        """Whether noise is added."""
        return bool(self.noise or self.noise_fixed)
