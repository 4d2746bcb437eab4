"""Examples whose images are arrays in memory: what small and made sets have in common."""

import hashlib

import numpy as np
from PIL import Image
from torch import Tensor


class InMemory:
    """``images``: ``(n, H, W)`` or ``(n, H, W, 3)`` uint8; ``labels``, ``ids``: ``(n,) int64``; ``what`` an example is
    called, before its id.  The digest is over pixels and labels."""

    starts = None

    def __init__(self, images: np.ndarray, labels: Tensor, ids: Tensor, what: str) -> None:
        self._images, self.labels, self.ids, self._what = images, labels, ids, what
        self.digest = hashlib.sha256(images.tobytes() + labels.numpy().tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, i: int) -> Image.Image:
        return Image.fromarray(self._images[i])

    def name(self, i: int) -> str:
        return f"{self._what} {int(self.ids[i])}"
