"""Images, input gradients and perturbations as PNG data URIs."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

LARGEST = 256
"""Pixels of the longer side beyond which a picture is made smaller: the page is for mailing."""
TINY = 96
"""Up to here a picture is enlarged without smoothing."""
FALLS, RISES = (0, 68, 128), (190, 72, 0)
"""The ends of the diverging map, blue and vermilion: one darker than the other, so that grey tells them apart."""
FACTORS = (1, 2, 5, 10, 20, 50, 100, 200, 500)


@dataclass(frozen=True)
class Seen:
    """What one model makes of an image.  ``adversarial`` and ``perturbation`` are None where nothing was found."""

    title: str
    prediction: str
    gradient: str
    adversarial: str | None
    adversarial_prediction: str | None
    perturbation: str | None
    factor: int
    distance: str
    wrong: bool


@dataclass(frozen=True)
class Picture:
    id: str
    label: str
    image: str
    tiny: bool
    models: tuple[Seen, ...]


def pictures(given: Sequence[Mapping[str, Any]]) -> list[Picture]:
    return [_picture(one) for one in given]


def _picture(one: Mapping[str, Any]) -> Picture:
    image = np.asarray(one["image"], dtype=np.float64)
    largest = max(
        (np.abs(np.asarray(model["adversarial"], dtype=np.float64) - image).max() for model in one["models"]
         if model["adversarial"] is not None),
        default=0.0,
    )  # fmt: skip
    factor = next((factor for factor in reversed(FACTORS) if factor * largest <= 0.5), 1)
    models = tuple(_seen(model, image, str(one["label"]), factor) for model in one["models"])
    return Picture(str(one["id"]), str(one["label"]), uri(image), max(image.shape[:2]) <= TINY, models)


def _seen(model: Mapping[str, Any], image: np.ndarray, label: str, factor: int) -> Seen:
    """The factor is of both models, so that what they need can be compared."""
    adversarial = model["adversarial"]
    found = None if adversarial is None else np.asarray(adversarial, dtype=np.float64)
    return Seen(
        model["title"],
        str(model["prediction"]),
        uri(diverging(np.asarray(model["gradient"], dtype=np.float64))),
        None if found is None else uri(found),
        None if model["adversarial_prediction"] is None else str(model["adversarial_prediction"]),
        None if found is None else uri(0.5 + factor * (found - image)),
        factor,
        f"{model['distance']:.3g}",
        str(model["prediction"]) != label,
    )


def diverging(gradient: np.ndarray) -> np.ndarray:
    """``(H, W, C)`` signed to ``(H, W, 3)`` colours: white at 0, ``FALLS`` below, ``RISES`` above.

    Channels are summed, and the scale is the 99.5 % quantile of the magnitude: one pixel does not darken the rest.
    What is not finite is shown as 0.
    """
    signed = np.nan_to_num(gradient, posinf=0, neginf=0).sum(axis=2)
    scale = np.quantile(np.abs(signed), 0.995) or np.abs(signed).max() or 1.0
    strength = np.clip(signed / scale, -1, 1)[..., None]
    ends = np.where(strength < 0, np.array(FALLS) / 255, np.array(RISES) / 255)
    coloured: np.ndarray = 1 - np.abs(strength) * (1 - ends)
    return coloured


def uri(image: np.ndarray) -> str:
    """A PNG of ``(H, W, C)`` in [0, 1], clipped to it: grey for one channel, colour for three, else their mean."""
    levels = np.rint(255 * np.clip(np.nan_to_num(image), 0, 1)).astype(np.uint8)
    if levels.shape[2] != 3:
        levels = np.rint(levels.mean(axis=2)).astype(np.uint8)
    drawn = Image.fromarray(levels)
    drawn.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    drawn.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
