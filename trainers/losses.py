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
