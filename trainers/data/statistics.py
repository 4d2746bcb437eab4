"""Mean and standard deviation of each channel, exactly."""

import torch
from torch import Tensor

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


def mean_and_std(images: Tensor, rows: Tensor) -> Statistics:
    """Over the pixels of ``images[rows]``, ``(M, C, H, W) uint8``, in [0, 1].

    From counts of the 256 grey levels, so the result does not depend on threads or order; a constant channel gets
    the deviation of one grey level, so that normalising by it stays finite.
    """
    counts = torch.zeros(images.shape[1], 256, dtype=torch.float64)
    for chunk in rows.split(4096):
        for channel, pixels in enumerate(images[chunk].unbind(1)):
            counts[channel] += torch.bincount(pixels.reshape(-1), minlength=256)
    share = counts / counts.sum(1, keepdim=True)
    level = torch.arange(256, dtype=torch.float64) / 255
    mean = (share * level).sum(1)
    deviation = (share * (level - mean[:, None]) ** 2).sum(1).sqrt().clamp_min(1 / 255)
    return tuple(mean.tolist()), tuple(deviation.tolist())
