"""Losses of logits, one value an example ``(N,)``, taken in float32 or wider whatever the logits' dtype."""

import torch
import torch.nn.functional as F
from torch import Tensor


def _wide(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def cross_entropy(logits: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
    """``-sum_k q_k log p_k``, where ``q`` is the one-hot of classes ``y: (N,)`` or soft targets ``y: (N, K)``, smoothed
    to ``(1 - smoothing) q + smoothing / K``.
    """
    return F.cross_entropy(_wide(logits), y, reduction="none", label_smoothing=smoothing)


def check_smoothing(smoothing: float) -> None:
    """``ValueError`` for a label smoothing outside [0, 1)."""
    if not 0 <= smoothing < 1:
        raise ValueError(
            f"objective.smoothing={smoothing:g} must be in [0, 1); 0.1 is the usual choice, 0 turns it off"
        )


def kl_divergence(log_q: Tensor, log_p: Tensor) -> Tensor:
    """``KL(p || q) = sum_k p_k (log p_k - log q_k)`` of log-probabilities ``(N, K)``."""
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)


def log_softmax(logits: Tensor) -> Tensor:
    return _wide(logits).log_softmax(1)


def hard(y: Tensor) -> Tensor:
    """Classes ``(N,)`` of hard or soft targets."""
    return y if y.dim() == 1 else y.argmax(1)


def accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """Share of examples whose largest logit is (the largest class of) their target; 0-dim."""
    return (logits.argmax(1) == hard(y)).float().mean()


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """``z_y - max_{k != y} z_k``: not above 0 where the example is misclassified or tied."""
    logits = _wide(logits)
    others = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    return logits.gather(1, y[:, None])[:, 0] - others


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """``-(z_y - max_{k != y} z_k) / (z_(1) - z_(3) + 1e-12)``, with ``z_(1) >= z_(2) >= ...`` the sorted logits.

    The difference-of-logits ratio does not change when the logits are shifted or scaled.  Needs 3 classes.
    Source: Croce and Hein 2020 (2003.01690), eq. 3.
    """
    first, second, third = _wide(logits).topk(3, dim=1).values.unbind(1)
    of_y = _wide(logits).gather(1, y[:, None])[:, 0]
    other = torch.where(logits.argmax(1) == y, second, first)
    return -(of_y - other) / (first - third + 1e-12)


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """``-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2 + 1e-12)``.  Needs 4 classes.

    Source: Croce and Hein 2020 (2003.01690), eq. 6.
    """
    logits = _wide(logits)
    first, _, third, fourth = logits.topk(4, dim=1).values.unbind(1)
    of_y, of_target = logits.gather(1, torch.stack([y, target], 1)).unbind(1)
    return -(of_y - of_target) / (first - 0.5 * (third + fourth) + 1e-12)
