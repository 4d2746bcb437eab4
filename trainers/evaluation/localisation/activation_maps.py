"""Maps from a network's last feature map ``A (N, C, h, w)``: CAM and Grad-CAM."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.evaluation.localisation.explained import explained, of_largest
from trainers.evaluation.localisation.features import kept, last_feature_map
from trainers.modes import connected, frozen, mode, outside_inference
from trainers.types import Model


@dataclass(frozen=True)
class GradCAM:
    """``ReLU( Σ_k a_k A_k )`` with ``a_k = mean_{ij} ∂ f(x)_y / ∂ A_k[i, j]``, resized to the image (bilinear), divided
    by its largest value.

    ``layer``: the module's name; left out, the last whose output is a feature map of more than one pixel.

    Source: Selvaraju et al. 2017 (1610.02391), equations 1 and 2.
    Errors: ``ValueError`` for a layer that there is not or that gives no feature map, and for a network without one.
    """

    layer: str | None = None

    @property
    def name(self) -> str:
        return "grad_cam"

    def __call__(self, model: Model, x: Tensor, y: Tensor | None = None) -> Tensor:
        with mode(model, train=False), frozen(model), torch.inference_mode(False), torch.enable_grad():
            x, y = outside_inference(x), None if y is None else outside_inference(y)
            layer = last_feature_map(model, x) if self.layer is None else self.layer
            with kept(model, layer, x) as found:
                logits = model(x)
            if not found:
                raise ValueError(f"localisation.layer={layer} takes no part in a forward: name one that does")
            (features,) = found
            classes = explained(logits.detach(), y)
            score = connected(logits, features).gather(1, classes[:, None]).sum()
            (slope,) = torch.autograd.grad(score, features, materialize_grads=True)
        return _resized(slope.mean((2, 3)), features.detach(), x)


@dataclass(frozen=True)
class CAM:
    """``ReLU( Σ_k W[y, k] A_k )``, resized to the image (bilinear), divided by its largest value.

    ``W`` is the head of a network that is ``f(x) = W mean_{ij} A[i, j] + b``, which is checked on the images at hand.
    There it is Grad-CAM times ``h w``.

    Source: Zhou et al. 2016 (1512.04150), equation 2.  Where we differ: the negative part is cut off, which moves no
    box, as boxes hold what is above a share of the largest value.
    Errors: ``ValueError`` for a network of another form; Grad-CAM takes any that has a feature map.
    """

    @property
    def name(self) -> str:
        return "cam"

    def __call__(self, model: Model, x: Tensor, y: Tensor | None = None) -> Tensor:
        with mode(model, train=False), torch.inference_mode(False), torch.no_grad():
            x, y = outside_inference(x), None if y is None else outside_inference(y)
            layer, head = last_feature_map(model, x), _head(model, x)
            with kept(model, layer, x) as found:
                logits = model(x)
            (features,) = found
            pooled = features.mean((2, 3))
            if not _same(head, pooled, logits):
                raise ValueError(
                    f"localisation.map=cam: the logits are no linear map of the mean of {layer}, the last feature map: "
                    "use Grad-CAM, which asks for no such head"
                )
            return _resized(head.weight[explained(logits, y)], features, x)


def _head(model: Model, x: Tensor) -> nn.Linear:
    """The linear layer that was called last."""
    called: list[nn.Linear] = []
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    hooks = [module.register_forward_hook(lambda m, inputs, output: called.append(m)) for module in linears]
    try:
        model(x[:1])
    finally:
        for hook in hooks:
            hook.remove()
    if not called:
        raise ValueError("localisation.map=cam: this network ends in no linear layer; use Grad-CAM")
    return called[-1]


def _same(head: nn.Linear, pooled: Tensor, logits: Tensor) -> bool:
    if pooled.shape[1] != head.in_features or logits.shape[1] != head.out_features:
        return False
    expected = F.linear(pooled, head.weight, head.bias)
    scale = float(expected.abs().amax()) + 1e-6
    return bool(((expected - logits).abs().amax() <= 1e-3 * scale).item())


def _resized(weights: Tensor, features: Tensor, x: Tensor) -> Tensor:
    wide = torch.promote_types(features.dtype, torch.float32)
    maps = torch.einsum("nc,nchw->nhw", weights.detach().to(wide), features.detach().to(wide)).relu()
    resized = F.interpolate(maps[:, None], x.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    return of_largest(resized)
