"""How the steepness of the loss is spread: over images, colours and pixels."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from trainers import distributed, losses
from trainers.evaluation.accuracy import CleanAccuracy, RobustAccuracy
from trainers.modes import frozen, input_gradient, mode, outside_inference
from trainers.types import Attack, Batch, Model

QUANTILES = (0.5, 0.9, 0.99, 0.999)


class Mean(NamedTuple):
    """Of a quantity over every example of every rank that has it: ``value``, the standard deviation ``spread``
    (``n - 1`` in its denominator, 0 for one example), their number ``n``, and their share ``defined`` of all."""

    value: float
    spread: float
    n: int
    defined: float

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """``value ± z · spread / sqrt(n)``, ``z`` the normal quantile: how sure the images are, not the training."""
        half = NormalDist().inv_cdf((1 + confidence) / 2) * self.spread / math.sqrt(self.n)
        return self.value - half, self.value + half


def mean(values: Tensor, what: str, defined: Tensor | None = None) -> Mean:
    """Of ``values: (N,)``, those where ``defined: (N,) bool``; what is not a number counts, and shows.

    Every rank calls it, also one that has no example.
    Errors: ``ValueError`` where no rank has an example, or none has this quantity.
    """
    own = values.double() if defined is None else values[defined].double()
    counts = torch.tensor([len(values), len(own), 0.0], dtype=torch.float64)
    counts[2] = own.sum()
    everyone, n, summed = distributed.total(counts).tolist()
    if everyone == 0:
        raise ValueError(f"no examples to measure {what} on: the split is empty; choose another or raise its size")
    if n == 0:
        raise ValueError(
            f"{what} is undefined on every one of {everyone:.0f} images: look for a gradient that is zero everywhere, "
            "or images that show nothing"
        )
    squares = distributed.total((own - summed / n).square().sum()).item()
    return Mean(summed / n, math.sqrt(squares / max(n - 1, 1)), int(n), n / everyone)


def gradients(model: Model, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """``∇_x CE(f(x), y)`` in pixel units ``(N, C, H, W)``, ``CE (N,)`` and logits, in eval mode."""
    loss = partial(losses.cross_entropy, y=outside_inference(batch.y))
    with mode(model, train=False), frozen(model):
        return input_gradient(model, batch.x, loss)


def collect(batches: Iterable[Batch], measure: Callable[[Batch], Tensor], columns: int) -> tuple[Tensor, Tensor]:
    """``(keys (N,) int64, what measure says (N, columns) float64)`` of this rank's examples, on the CPU."""
    keys, found = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, columns, dtype=torch.float64)]
    for batch in batches:
        found.append(measure(batch).double().cpu())
        keys.append(batch.keys.cpu())
    return torch.cat(keys), torch.cat(found)


@dataclass(frozen=True)
class GradientGroups:
    """Yields ``gradient_l1`` and its means ``gradient_l1_correct``, ``_incorrect``, ``_robust`` and ``_vulnerable``,
    with ``correct_share`` and ``robust_share``; the mean of a group without examples is left out.

    ``||∇_x CE(f(x), y)||_1`` per pixel unit, summed over C, H, W.  An image is robust that is classified rightly both
    as it is and under ``attack``, vulnerable otherwise, so
    ``gradient_l1 = robust_share · gradient_l1_robust + (1 - robust_share) · gradient_l1_vulnerable``.

    Source: 2409.20139, the table of gradient statistics: PGD-10 at Linf 4/255 on 10,000 images.
    Errors: ``ValueError`` if no rank has an example.
    """

    attack: Attack

    def __call__(self, model: Model, batches: Iterable[Batch]) -> Iterator[tuple[str, float]]:
        l1, *groups = self.values(model, batches)[1].T
        yield "gradient_l1", mean(l1, "gradients").value
        for inside, outside, group in zip(("correct", "robust"), ("incorrect", "vulnerable"), groups, strict=True):
            share = mean(group, inside).value
            yield f"{inside}_share", share
            if share > 0:
                yield f"gradient_l1_{inside}", mean(l1, inside, group == 1).value
            if share < 1:
                yield f"gradient_l1_{outside}", mean(l1, outside, group == 0).value

    def values(self, model: Model, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
        """``(keys (N,), (N, 3) float64)`` of this rank, what a histogram is drawn from: the norm, then 1 for correct
        and 1 for robust."""
        return collect(batches, partial(self._measure, model), 3)

    def _measure(self, model: Model, batch: Batch) -> Tensor:
        l1 = gradients(model, batch)[0].flatten(1).double().abs().sum(1).cpu()
        verdicts = (probe.verdicts(model, [batch])[1] for probe in (CleanAccuracy(), RobustAccuracy(self.attack)))
        return torch.stack([l1, *(right.double() for right in verdicts)], 1)


@dataclass(frozen=True)
class ChannelGradients:
    """Yields ``gradient_share_<channel>``: ``Σ |g_c| / Σ |g|`` over every pixel of every image, the shares sum to 1.

    ``histogram`` counts the pixels of each channel by ``log10 |g|``.

    ``channels``: one name a channel; ``smallest`` and ``largest``: powers of ten; ``bins`` a decade.

    Source: 2409.20139, channel statistics; the bins are ours.
    Errors: ``ValueError`` for a range without bins, images of another number of channels, no examples, and gradients
    that are zero or not finite.
    """

    channels: tuple[str, ...] = ("red", "green", "blue")
    smallest: int = -12
    largest: int = 4
    bins: int = 10

    def __post_init__(self) -> None:
        if not self.channels or self.smallest >= self.largest or self.bins < 1:
            raise ValueError(
                f"channels={self.channels}, smallest={self.smallest}, largest={self.largest}, bins={self.bins} leave "
                "nothing to count: give a channel, smallest below largest, and at least one bin a decade"
            )

    def __call__(self, model: Model, batches: Iterable[Batch]) -> Iterator[tuple[str, float]]:
        sums = torch.zeros(len(self.channels), dtype=torch.float64)
        for g in self._absolute(model, batches):
            sums += g.sum((0, 2)).cpu()
        sums = distributed.total(sums)
        if not 0 < sums.sum() < math.inf:
            raise ValueError(f"the gradients of all images sum to {sums.sum():g}: there is no share of that to give")
        for name, share in zip(self.channels, (sums / sums.sum()).tolist(), strict=True):
            yield f"gradient_share_{name}", share

    def histogram(self, model: Model, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
        """``(edges (B + 1,), counts (channels, B + 2))`` over every rank: the first count is of what is smaller than
        every edge, zeros with it, the last of what is as large as the last edge, or not a number."""
        number = (self.largest - self.smallest) * self.bins
        edges = 10 ** torch.linspace(self.smallest, self.largest, number + 1, dtype=torch.float64)
        counts = torch.zeros(len(self.channels), number + 2, dtype=torch.int64)
        for g in self._absolute(model, batches):
            place = torch.bucketize(g.cpu(), edges, right=True).movedim(1, 0).flatten(1)
            counts.scatter_add_(1, place, torch.ones_like(place))
        return edges, distributed.total(counts)

    def _absolute(self, model: Model, batches: Iterable[Batch]) -> Iterator[Tensor]:
        """``|g|``, ``(N, C, H·W) float64``."""
        for batch in batches:
            if batch.x.shape[1] != len(self.channels):
                raise ValueError(
                    f"channels={self.channels} name {len(self.channels)}, the images have {batch.x.shape[1]}: "
                    "name each one, such as (grey,)"
                )
            yield gradients(model, batch)[0].flatten(2).double().abs()


@dataclass(frozen=True)
class GradientTails:
    """Yields ``gradient_kurtosis`` and ``gradient_tail_0.9``, ``_0.99``, ``_0.999``: means over images.

    Over the entries of one image's gradient: kurtosis ``E (g - E g)⁴ / (E (g - E g)²)²``, 3 for a normal distribution,
    and the quantiles of ``|g|`` over its median, 1.64/0.67 = 2.44, 3.82 and 4.88 for one.  Neither changes with the
    scale of ``g``, so a confident image counts as much as another.  Quantiles interpolate between entries: an image of
    few pixels has none to tell .999 from its largest.

    An image whose gradient is zero has no kurtosis, one whose median is zero no ratio; they are left out, and
    ``gradient_tail_defined`` is the share of images that have both; where none has, no ratio is told.

    Source: heavier tails under 2409.20139's channel statistics; these two measures are ours.
    Errors: ``ValueError`` if no rank has an example, or every gradient is zero.
    """

    def __call__(self, model: Model, batches: Iterable[Batch]) -> Iterator[tuple[str, float]]:
        _, found = self.values(model, batches)
        kurtosis, defined = found[:, 0], ~found.isnan().any(1)
        yield "gradient_kurtosis", mean(kurtosis, "kurtosis", ~kurtosis.isnan()).value
        share = mean(defined.double(), "tails").value
        yield "gradient_tail_defined", share
        for q, ratio in zip(QUANTILES[1:], found[:, 1:].T, strict=True):
            if share > 0:
                yield f"gradient_tail_{q:g}", mean(ratio, "tails", defined).value

    def values(self, model: Model, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
        """``(keys (N,), (N, 4) float64)`` of this rank: kurtosis and the three ratios, NaN where there is none."""

        def measure(batch: Batch) -> Tensor:
            g = gradients(model, batch)[0].flatten(1).double()
            return torch.cat([kurtosis(g)[:, None], tails(g)], 1)

        return collect(batches, measure, 1 + len(QUANTILES[1:]))


def kurtosis(g: Tensor) -> Tensor:
    """Of each row of ``(N, D)``; the rows are divided by their largest entry first, or small ones would square to 0."""
    g = g / g.abs().amax(1, keepdim=True)
    g = g - g.mean(1, keepdim=True)
    return g.pow(4).mean(1) / g.square().mean(1).square()


def tails(g: Tensor) -> Tensor:
    """Quantiles of ``|g|`` over the median, ``(N, 3)``, NaN where the median is 0.

    ``torch.quantile`` refuses a batch of large images.
    """
    ordered = g.abs().sort(1).values
    place = torch.tensor(QUANTILES, dtype=torch.float64, device=g.device) * (g.shape[1] - 1)
    low = place.floor().long()
    quantiles = ordered[:, low].lerp(ordered[:, place.ceil().long()], (place - low).to(g.dtype))
    return (quantiles[:, 1:] / quantiles[:, :1]).masked_fill(quantiles[:, :1] == 0, torch.nan)
