"""Trying a new classifier on one image, before any work starts."""

import torch

from trainers.models import stems
from trainers.models.calls import Calls
from trainers.models.classifier import Classifier
from trainers.modes import mode


def check_forward(classifier: Classifier, asked: str) -> None:
    """One image forward: it must give ``num_classes`` logits, and no activation may have escaped ``replace``.

    ``asked`` is the stem that was asked for; ``classifier.spec`` holds the one that was built.
    Errors: ``ValueError`` naming setting, value and remedy.
    """
    spec = classifier.spec
    x = torch.zeros(1, *spec["input_size"])
    with mode(classifier, train=False), torch.no_grad(), Calls() as calls:
        try:
            logits = classifier(x)
        except Exception as error:
            raise ValueError(
                f"model.name={spec['name']!r} with model.stem={spec['stem']} cannot take {tuple(x.shape[1:])} images "
                f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); choose larger images "
                "or another model"
            ) from error
        if asked == "auto" and spec["stem"] == "standard" and max(spec["input_size"][1:]) <= stems.SMALL:
            _check_resolution(classifier)
    if logits.shape != (1, spec["num_classes"]):
        raise ValueError(f"model.name={spec['name']!r} is no classifier: its output is {tuple(logits.shape)}")
    if spec["activation"] and spec["activation"]["name"] != "relu" and "relu" in calls.seen:
        raise ValueError(
            f"model.activation={spec['activation']['name']!r}: {spec['name']!r} calls ReLU as a function, which cannot "
            "be replaced; choose a model whose activations are modules (resnet*, convnext*, efficientnet* ...)"
        )


def _check_resolution(classifier: Classifier) -> None:
    """Where no small stem is known, the standard one must leave at least 2x2 positions."""
    spec = classifier.spec
    forward_features = getattr(classifier.network, "forward_features", None)
    if forward_features is None:
        return
    features = forward_features(classifier.normalize(torch.zeros(1, *spec["input_size"])))
    if features.dim() == 4 and min(features.shape[2:]) < 2:
        raise ValueError(
            f"model.stem=auto: no small stem is known for model.name={spec['name']!r}, and the standard one shrinks "
            f"{tuple(spec['input_size'])} images to {tuple(features.shape[2:])}; choose larger images, a resnet*, or "
            "model.stem=standard to take it as it is"
        )
