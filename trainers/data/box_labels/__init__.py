"""True boxes of photographs: CUB-200-2011's and ImageNet's layouts, and how boxes follow an image."""

from trainers.data.box_labels.cub import CUB
from trainers.data.box_labels.geometry import Boxed, carried
from trainers.data.box_labels.imagenet import imagenet_boxes

__all__ = ["CUB", "Boxed", "carried", "imagenet_boxes"]
