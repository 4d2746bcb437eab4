"""Standard training is the mean cross-entropy."""

import pytest
import torch
import torch.nn.functional as F

from trainers.objectives.standard import Standard


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_the_mean_cross_entropy(small_net, images, labels, smoothing):
    model = small_net()
    loss, metrics = Standard(smoothing=smoothing)(model, images, labels)
    torch.testing.assert_close(loss, F.cross_entropy(model(images), labels, label_smoothing=smoothing))
    assert metrics["accuracy"] == (model(images).argmax(1) == labels).float().mean()


@pytest.mark.parametrize("settings", [{"smoothing": 1.5}, {"mode": "training"}])
def test_wrong_settings_are_named_when_building(settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"objective.{name}='?{value}"):
        Standard(**settings)
