"""How much of an image's detail a classifier needs."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.evaluation.accuracy import CleanAccuracy
from trainers.evaluation.gradient_statistics import collect, mean
from trainers.types import Batch, Model


@dataclass(frozen=True)
class LowPassAccuracy:
    """Yields ``low_pass_accuracy_<radius>``: the clean accuracy on images that keep the frequencies up to ``radius``.

    ``radii`` are in cycles per image (``octaves(height, width)`` gives some).  From the highest frequency on,
    ``sqrt((H//2)² + (W//2)²)``, the image passes untouched, and the accuracy is the clean one.

    Source: 2409.20139, frequency response, radii 112 down to 4 in steps of 2 for images of 224 pixels; 112 cuts the
    corners of the spectrum.
    Errors: ``ValueError`` for no or negative radii, and if no rank has an example.
    """

    radii: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.radii or not all(radius >= 0 for radius in self.radii):
            raise ValueError(f"radii={self.radii} must be one or more numbers from 0 up, such as 112, 56, 28, 14")

    def __call__(self, model: Model, batches: Iterable[Batch]) -> Iterator[tuple[str, float]]:
        for radius, correct in zip(self.radii, self.values(model, batches)[1].T, strict=True):
            yield f"low_pass_accuracy_{radius:g}", mean(correct, "accuracy").value

    def values(self, model: Model, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
        """``(keys (N,), (N, radii) float64)`` of this rank's examples: 1 for rightly classified."""

        def measure(batch: Batch) -> Tensor:
            passed = (batch._replace(x=low_pass(batch.x, radius)) for radius in self.radii)
            return torch.stack([CleanAccuracy().verdicts(model, [one])[1] for one in passed], 1)

        return collect(batches, measure, len(self.radii))


def low_pass(x: Tensor, radius: float) -> Tensor:
    """``F⁻¹( [sqrt(u² + v²) <= radius] · F(x) )``, clipped to [0, 1], each channel by itself.

    ``F`` is the orthonormal discrete Fourier transform, ``u`` and ``v`` cycles per image, negative ones alike, so the
    disc is centred on the mean.  Sharp edges ring beyond [0, 1], where no image lies: clipping puts a little of the
    high frequencies back.  Where nothing is cut the result is ``x`` itself.
    """
    height, width = x.shape[-2:]
    v = torch.arange(height, dtype=torch.float64, device=x.device)
    v = torch.minimum(v, height - v)  # row k and row H - k are the same frequency, up and down
    u = torch.arange(width // 2 + 1, dtype=torch.float64, device=x.device)
    kept = torch.hypot(v[:, None], u[None, :]) <= radius
    if kept.all():
        return x
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    spectrum = torch.fft.rfft2(wide, norm="ortho") * kept
    return torch.fft.irfft2(spectrum, s=(height, width), norm="ortho").clamp(0, 1).to(x.dtype)


def octaves(height: int, width: int) -> tuple[float, ...]:
    """From everything through half the shorter side, the inscribed disc, down to 1, halved each time."""
    full = math.ceil(math.hypot(height // 2, width // 2))
    found, radius = [float(full)], min(height, width) // 2
    while radius >= 1:
        found.append(float(radius))
        radius //= 2
    return tuple(dict.fromkeys(found))
