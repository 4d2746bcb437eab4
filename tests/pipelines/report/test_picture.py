"""Pictures: what is drawn is what was given."""

import base64
import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.report import page, picture
from tests.pipelines.report import samples
from tests.pipelines.report.reading import Page


def pixels(uri: str) -> np.ndarray:
    head, data = uri.split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_of_8_bits_comes_back_exactly(channels):
    levels = np.random.default_rng(0).integers(0, 256, (8, 6, channels))
    assert (pixels(picture.uri(levels / 255)).reshape(8, 6, channels) == levels).all()


def test_large_images_are_made_smaller_in_proportion_and_odd_channels_grey():
    assert pixels(picture.uri(np.zeros((640, 320, 3)))).shape == (256, 128, 3)
    assert pixels(picture.uri(np.full((4, 4, 2), (0.0, 1.0))))[0, 0] == 128


def test_the_map_is_white_at_zero_and_its_signs_differ_in_hue_and_in_grey():
    drawn = picture.diverging(np.array([[[-2.0], [-1.0], [0.0], [1.0], [2.0]]]))[0]
    assert (drawn[2] == 1).all()
    blue, vermilion = drawn[0], drawn[4]
    assert blue[2] > blue[0]
    assert vermilion[0] > vermilion[2]
    grey = drawn @ (0.299, 0.587, 0.114)
    assert grey[0] < grey[1] < grey[2] > grey[3] > grey[4]
    assert abs(grey[4] - grey[0]) > 0.1


@pytest.mark.parametrize("value", [0.0, 1e-30, np.nan, np.inf])
def test_a_gradient_of_any_scale_has_colours(value):
    drawn = picture.diverging(np.full((4, 4, 3), value))
    assert np.isfinite(drawn).all()
    assert ((drawn >= 0) & (drawn <= 1)).all()
    assert (drawn < 1).any() == (value == 1e-30)


def test_the_perturbation_is_magnified_by_what_its_caption_says():
    image = np.full((8, 8, 1), 0.5)
    found = image + 0.03 * np.random.default_rng(0).choice([-1, 0, 1], (8, 8, 1))
    seen = picture.pictures([one(image, found)])[0].models[0]
    assert seen.factor == 10  # 20 would leave [0, 1]
    back = (pixels(str(seen.perturbation)) / 255 - 0.5) / seen.factor
    assert np.abs(back - (found - image)[..., 0]).max() < 0.5 / 255 / seen.factor + 1e-3


def one(image: np.ndarray, found: np.ndarray | None) -> dict[str, Any]:
    then = None if found is None else "8"
    model = {"title": "net", "prediction": "3", "gradient": image - 0.5, "adversarial": found}
    return {
        "id": 17,
        "label": "3",
        "image": image,
        "models": [{**model, "adversarial_prediction": then, "distance": 0.03}],
    }


def test_both_models_stand_beside_each_other_with_one_factor():
    given = samples.pictures(count=8, steps=60)
    read = Page(page(samples.digits(), given))
    drawn = picture.pictures(given)
    assert all(len({model.factor for model in each.models}) == 1 for each in drawn)
    found = [model for each in given for model in each["models"] if model["adversarial"] is not None]
    assert len(read.all("img")) == len(given) * 3 + 2 * len(found)
    assert len(read.all("article", "tiny")) == len(given)
    described = {image["alt"] for image in read.all("img")}
    for title, id in ((model["title"], each["id"]) for each in given for model in each["models"]):
        assert f"Input gradient of {title} at image {id}" in described
    assert len(re.findall(r"perturbation × \d+, size 0\.2", read.text)) == len(found)


@pytest.mark.parametrize(
    ("label", "said"),
    [("3", "No adversarial example was found: it withstood."), ("5", "Wrong as it is: there is nothing to attack.")],
)
def test_without_an_adversarial_example_it_says_why(label, said):
    given = {**one(np.full((200, 200, 3), 0.5), None), "label": label}
    read = Page(page(samples.digits(), [given]))
    assert said in read.text
    assert "What the model sees" in read.text
    assert len(read.all("img")) == 2
    assert not read.all("article", "tiny")  # 200 pixels are drawn smoothly
