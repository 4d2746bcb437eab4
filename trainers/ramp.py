"""A straight line in the epoch, held level at both ends: ramps and warm-ups are one idea."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Ramp:
    """``clamp(start + (epoch - delay) · slope, start, stop)`` for a rising or falling line from ``start`` to ``stop``.

    ``slope`` is per epoch.  Source: ``alpha(t)`` of 2409.20139's training code, (0, 0.2, 1): full after 5 epochs.
    """

    start: float = 0.0
    slope: float = 0.2
    stop: float = 1.0
    delay: float = 0.0

    def __post_init__(self) -> None:
        if self.start != self.stop and (self.stop - self.start) * self.slope <= 0:
            raise ValueError(
                f"ramp.slope={self.slope:g} never leads from start={self.start:g} to stop={self.stop:g}: "
                "give it the sign of stop - start"
            )

    def __call__(self, epoch: float | Tensor) -> float | Tensor:
        low, high = sorted((self.start, self.stop))
        value = self.start + (epoch - self.delay) * self.slope if self.slope else self.stop
        return value.clamp(low, high) if isinstance(value, Tensor) else min(max(value, low), high)


CONSTANT = Ramp(start=1.0, slope=0.0, stop=1.0)
