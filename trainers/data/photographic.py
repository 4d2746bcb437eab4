"""timm's augmentation of one photograph, seeded per example."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from PIL import Image
from timm.data import auto_augment
from timm.data.random_erasing import RandomErasing
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torchvision import transforms

Size = tuple[int, int, int]
Transform = Callable[[Image.Image], Tensor]
Augmented = Callable[[Image.Image, int], Tensor]
"""``(image, seed)`` to ``(C, H, W) uint8``; the same seed, the same tensor."""

INTERPOLATIONS = ("bicubic", "bilinear", "nearest", "random")


@dataclass(frozen=True)
class Photographic:
    """Training: RandomResizedCrop (area ``scale``, aspect ``ratio``), mirrored with probability ``flip``, then
    RandAugment or another of timm's policies (``auto_augment``, None for none), colour jitter (which timm leaves out
    under RandAugment), and with probability ``erasing`` a box filled with ``mean + std·N(0, 1)`` a pixel ("pixel"), a
    colour ("rand") or the mean ("const").  Evaluation: resized to ``input_size / crop_pct``, cropped at the centre.

    Pixels stay in [0, 1]: normalisation is the model's.  The defaults are the ImageNet recipe of
    Wightman et al. 2021 (2110.00476) and Liu et al. 2021 (Swin, 2103.14030), at 224 of 256 pixels.
    Source: Cubuk et al. 2020 (1909.13719), Zhong et al. 2020 (1708.04896), as implemented in timm, but for
    posterize, which keeps at least 1 bit.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    auto_augment: str | None = "rand-m9-mstd0.5-inc1"
    color_jitter: float = 0.4
    erasing: float = 0.25
    erasing_mode: str = "pixel"
    interpolation: str = "bicubic"
    crop_pct: float = 0.875

    def __post_init__(self) -> None:
        for name in ("flip", "erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"data.transform.{name}={getattr(self, name)} must be a probability in [0, 1]")
        if not 0 < self.crop_pct <= 1:
            raise ValueError(f"data.transform.crop_pct={self.crop_pct} must be in (0, 1]; 1 keeps the whole image")
        for name, choices in (("interpolation", INTERPOLATIONS), ("erasing_mode", ("pixel", "rand", "const"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"data.transform.{name}={getattr(self, name)!r} must be one of {', '.join(choices)}")

    def training(self, input_size: Size, mean: Sequence[float], std: Sequence[float]) -> Augmented:
        try:
            augmented = create_transform(
                input_size=input_size,
                is_training=True,
                scale=(self.scale[0], self.scale[1]),
                ratio=(self.ratio[0], self.ratio[1]),
                hflip=self.flip,
                color_jitter=self.color_jitter,
                auto_augment=self.auto_augment,
                interpolation=self.interpolation,
                mean=tuple(mean),
                normalize=False,
            )
        except (AssertionError, ValueError) as error:
            raise ValueError(f"data.transform.auto_augment={self.auto_augment!r} is no timm policy: {error}") from error
        _keep_a_bit(augmented)
        return _Seeded(augmented, RandomErasing(self.erasing, mode=self.erasing_mode, device="cpu"), mean, std)

    def evaluation(self, input_size: Size) -> Transform:
        return create_transform(
            input_size=input_size,
            is_training=False,
            interpolation="bicubic" if self.interpolation == "random" else self.interpolation,
            crop_pct=self.crop_pct,
            normalize=False,
        )


class _Seeded:
    """timm erases normalised floats; here the box is drawn on an empty (NaN) canvas and laid over the pixels, so that
    what is not erased stays as it was."""

    def __init__(
        self,
        augmented: Callable[[Image.Image], Tensor],
        erase: RandomErasing,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self.augmented, self.erase = augmented, erase
        self.mean, self.std = (torch.tensor(list(v))[:, None, None] for v in (mean, std))

    def __call__(self, image: Image.Image, seed: int) -> Tensor:
        with seeded(seed):
            x = self.augmented(image)
            if self.erase.probability == 0:
                return x
            canvas = self.erase(torch.full(x.shape, torch.nan))
        erased = ((self.mean + self.std * canvas).clamp(0, 1) * 255).round()
        return torch.where(canvas.isnan(), x, erased.nan_to_num(0).to(torch.uint8))


def _keep_a_bit(augmented: transforms.Compose) -> None:
    """timm's strongest posterize (level 10) keeps 0 bits, a black image, which Pillow >= 12 refuses: keep 1."""
    for policy in augmented.transforms:
        for op in [*getattr(policy, "ops", []), *chain.from_iterable(getattr(policy, "policy", []))]:
            if op.aug_fn is auto_augment.posterize:
                op.aug_fn = _posterize


def _posterize(image: Image.Image, bits: int, **settings: object) -> Image.Image:
    return auto_augment.posterize(image, max(bits, 1), **settings)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global CPU generators of Python, numpy and torch seeded inside, as they were outside."""
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])
