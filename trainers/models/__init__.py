"""Any timm model as a classifier of pixels: created, checked, saved and loaded."""

from trainers.activations.replace import kink_sites
from trainers.models.build import create
from trainers.models.classifier import Classifier, Normalize
from trainers.models.holdfast_resnet import HoldfastResNet
from trainers.models.saved import load, save
from trainers.models.second_order import check_second_order

__all__ = ["Classifier", "HoldfastResNet", "Normalize", "check_second_order", "create", "kink_sites", "load", "save"]
