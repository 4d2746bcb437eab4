"""Where in an image a classifier finds its class, judged by boxes that it never saw."""

from trainers.evaluation.localisation.activation_maps import CAM, GradCAM
from trainers.evaluation.localisation.boxes import find_boxes, iou
from trainers.evaluation.localisation.gradient_map import GradientMap
from trainers.evaluation.localisation.scores import Localisation, Overlaps
from trainers.evaluation.localisation.thresholds import Threshold, max_box_accuracy, swept

__all__ = [
    "CAM",
    "GradCAM",
    "GradientMap",
    "Localisation",
    "Overlaps",
    "Threshold",
    "find_boxes",
    "iou",
    "max_box_accuracy",
    "swept",
]
