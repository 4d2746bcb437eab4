"""Swapping every activation of a network, by name."""

import inspect
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from timm.layers import activations, activations_me
from torch import nn

from trainers.activations import smooth
from trainers.activations.sharpened import Sharpened
from trainers.activations.surrogate import SurrogateReLU

NAMES: dict[str, type[nn.Module]] = {
    "softplus": smooth.Softplus,
    "parametric_softplus": smooth.ParametricSoftplus,
    "silu": smooth.SiLU,
    "gelu": smooth.GELU,
    "elu": smooth.ELU,
    "celu": smooth.CELU,
    "smooth_relu": smooth.SmoothReLU,
    "mish": smooth.Mish,
    "surrogate_relu": SurrogateReLU,
    "relu": nn.ReLU,
}
"""What a config may call an activation; ``relu`` is the control."""

KINKED = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.Hardtanh, nn.Threshold)
"""Piecewise linear: no second derivative."""

SITES: tuple[type[nn.Module], ...] = (
    *(t for t in KINKED if t is not nn.Hardtanh),
    *(nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Hardswish, smooth.SmoothReLU),
    *(SurrogateReLU, Sharpened),
    *(activations.Swish, activations.Mish, activations.GELU, activations.GELUTanh, activations.QuickGELU),
    *(activations.HardSwish, activations.HardMish),
    *(activations_me.SwishMe, activations_me.MishMe, activations_me.HardSwishMe, activations_me.HardMishMe),
)
"""What counts as an activation.  Sigmoids, tanh and softmax are gates: swapping one would change what it means."""


def make(name: str, **parameters: Any) -> nn.Module:
    """One activation.  With the parameter ``curvature`` it is ``Sharpened`` to that.

    Errors: ``ValueError`` for an unknown name or parameter, with the nearest ones.
    """
    if "curvature" in parameters and name in NAMES:
        return Sharpened(parameters.pop("curvature"), make(name, **parameters))
    if name not in NAMES:
        raise ValueError(f"model.activation={name!r} is unknown; {_nearest(name, list(NAMES))}")
    known = [] if NAMES[name] is nn.ReLU else list(inspect.signature(NAMES[name]).parameters)
    for parameter in parameters:
        if parameter not in known:
            raise ValueError(
                f"model.activation_parameters.{parameter}={parameters[parameter]!r} is not a parameter of {name!r}; "
                + (_nearest(parameter, known) if known else "it has none")
            )
    return NAMES[name](**parameters)


def replace(model: nn.Module, name: str, **parameters: Any) -> int:
    """Put a new ``name`` activation at every activation site of ``model``, in place; return how many there were.

    Each site gets its own module, also where the network shared one (the code of 2409.20139 puts one instance
    everywhere, which a learned activation would not survive).  A Squeeze-Excite gate keeps its function.  An
    activation that ``forward`` calls as a function is out of reach: ``trainers.models.create`` refuses those.

    Errors: ``ValueError`` for an unknown name or parameter, and for a network without a site.
    """
    make(name, **parameters)
    sites = list(_sites(model))
    if not sites:
        raise ValueError(
            f"model.activation={name!r}: {type(model).__name__} has no activation module to replace; "
            "leave model.activation empty, or choose a model whose activations are modules"
        )
    home = next(model.parameters(), None)
    for parent, child in sites:
        module = make(name, **parameters).train(parent.training)
        setattr(parent, child, module if home is None else module.to(home.device, home.dtype))
    return len(sites)


def kink_sites(model: nn.Module) -> list[str]:
    """Names of the modules that are piecewise linear, ReLU above all, whose second derivative is zero.

    A gradient penalty has little to hold on to there (2409.20139: 23 points of robust accuracy).
    """
    return [name for name, module in model.named_modules() if isinstance(module, KINKED)]


def _sites(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """``(parent, attribute)`` of every site; a module shared by several parents is several sites."""
    for parent in model.modules():
        if isinstance(parent, Sharpened):
            continue  # what it sharpens is no site of its own
        for child, module in parent._modules.items():
            if isinstance(module, SITES) and child != "gate":
                yield parent, child


def _nearest(word: str, known: list[str]) -> str:
    near = get_close_matches(word, known, n=3)
    return f"nearest: {', '.join(near)}" if near else f"known: {', '.join(known)}"
