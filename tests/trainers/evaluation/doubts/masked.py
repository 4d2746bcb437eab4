"""Networks spoilt on purpose, each around a sound one."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Around(nn.Module):
    """``after(model(before(x)))``."""

    def __init__(
        self,
        model: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda z: z,
    ) -> None:
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.model(self.before(x)))


def levels(x: Tensor, steps: int) -> Tensor:
    return (x * steps).round() / steps


def straight_through(x: Tensor, steps: int) -> Tensor:
    return x + (levels(x, steps) - x).detach()


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return -gradient


def reversed_gradient(x: Tensor) -> Tensor:
    return _Reversed.apply(x)


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.arange(10.0, device=x.device).flip(0).expand(len(x), 10) + 0 * x.sum()


class StuckNorm(nn.BatchNorm2d):
    """Keeps to train mode whatever it is told."""

    def train(self, mode: bool = True) -> "StuckNorm":
        super().train(True)
        return self


class WithNorm(nn.Module):
    """``model`` behind a norm whose effect, with good statistics, ``scale`` and ``shift`` undo."""

    def __init__(self, model: nn.Module, norm: nn.BatchNorm2d, scale: float, shift: float) -> None:
        super().__init__()
        self.model, self.norm, self.scale, self.shift = model, norm, scale, shift

    def forward(self, x: Tensor) -> Tensor:
        return self.model(self.norm(x) * self.scale + self.shift)


class SeedsItself(nn.Module):
    """Noise that is the same in every forward, but another for each place in the batch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return self.model(x + 0.1 * torch.randn_like(x))


class BatchStatistics(nn.Module):
    """Normalises by the batch it is in, in any mode, and keeps running statistics all the same."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("variance", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(0.3 * F.batch_norm(x, self.mean, self.variance, training=True) + 0.3)


class Purified(nn.Module):
    """Takes a step on its input before it classifies it; ``how`` it asks for the gradient."""

    def __init__(self, model: nn.Module, how: str) -> None:
        super().__init__()
        self.model, self.how = model, how

    def forward(self, x: Tensor) -> Tensor:
        return self.model((x - 0.01 * self._gradient(x.detach()).sign()).clamp(0, 1))

    def _gradient(self, x: Tensor) -> Tensor:
        def energy(x: Tensor) -> Tensor:
            return -self.model(x).logsumexp(1).sum()

        if self.how == "func":
            return torch.func.grad(energy)(x)
        with torch.enable_grad():
            x = x.clone().requires_grad_()
            if self.how == "grad":
                return torch.autograd.grad(energy(x), x)[0]
            energy(x).backward()
            assert x.grad is not None
            return x.grad


class Adapted(nn.Module):
    """Moves its own bias with every image it sees."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.bias = model, nn.Parameter(torch.zeros(10))

    def forward(self, x: Tensor) -> Tensor:
        z = self.model(x) + self.bias
        self.bias.data.add_(1e-3 * z.detach().mean(0))
        return z
