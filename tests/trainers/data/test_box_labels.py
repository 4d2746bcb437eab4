"""Box layouts, written as their publishers write them, and boxes that follow their image."""

import numpy as np
import pytest
import torch
from PIL import Image

from trainers.data.box_labels import CUB, Boxed, carried, imagenet_boxes
from trainers.data.examples import name_ids
from trainers.data.folder import Folder
from trainers.data.photographic import Photographic

FILES = {
    "images.txt": "1 001.Albatross/a.png\n2 001.Albatross/b.png\n3 002.Auk/c.png\n4 002.Auk/d.png\n",
    "image_class_labels.txt": "1 1\n2 1\n3 2\n4 2\n",
    "train_test_split.txt": "1 1\n2 0\n3 1\n4 0\n",
    "bounding_boxes.txt": "1 0.0 0.0 20.0 10.0\n2 3.0 2.0 10.5 6.0\n3 1.0 1.0 5.0 5.0\n4 10.0 4.0 10.0 6.0\n",
}
NAMES = ["001.Albatross/a.png", "001.Albatross/b.png", "002.Auk/c.png", "002.Auk/d.png"]


@pytest.fixture
def cub(tmp_path):
    """Four images of 20x10 pixels; a keyword replaces a text file."""

    def build(**changed):
        for number, name in enumerate(NAMES):
            path = tmp_path / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 10), (40 * number, 0, 0)).save(path)
        for name, text in FILES.items():
            (tmp_path / name).write_text(changed.get(name.removesuffix(".txt"), text))
        return CUB(str(tmp_path))

    return build


def test_cub_s_images_classes_and_boxes(cub):
    source = cub()
    assert source.classes == ("001.Albatross", "002.Auk")
    train, test = source.split("train"), source.split("test")
    assert [train.name(i) for i in range(2)] == NAMES[::2]
    assert test.labels.tolist() == [0, 1]
    assert torch.equal(test.ids, name_ids(NAMES[1::2]))
    assert np.asarray(test.image(1))[0, 0, 0] == 120
    assert train.digest != test.digest
    boxes = source.boxes("test")
    assert list(boxes) == test.ids.tolist()
    first, second = boxes.values()
    assert first.boxes.tolist() == [[3, 2, 13.5, 8]]
    assert second.boxes.tolist() == [[10, 4, 20, 10]]
    assert (first.width, first.height) == (20, 10)


def test_a_pixel_of_rounding_is_cut_off(cub):
    text = FILES["bounding_boxes.txt"].replace("4 10.0 4.0 10.0 6.0", "4 -1 4 22 7")
    assert list(cub(bounding_boxes=text).boxes("test").values())[1].boxes.tolist() == [[0, 4, 20, 10]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("4 10 4 10", r"bounding_boxes.txt line 4: '4 10 4 10' is not 'id x y width height'; correct"),
        ("4 10 4 ten 6", r"bounding_boxes.txt line 4: '10 4 ten 6' are not four numbers"),
        ("4 10 4 nan 6", r"line 4: the box from \(10, 4\) to \(nan, 10\) is not finite"),
        ("4 10 4 0 6", r"line 4: the box .* has no area: width and height must be above 0"),
        ("4 10 4 -3 6", r"line 4: the box from \(10, 4\) to \(7, 10\) has no area"),
        ("4 10 4 12 6", r"line 4: the box from \(10, 4\) to \(22, 10\) stands out of its image of 20x10"),
        ("4 20.5 4 0.3 6", r"line 4: .* lies beside its image of 20x10"),
        ("4 -2 4 5 6", r"line 4: .* stands out"),
        ("", r"bounding_boxes.txt has no line for image 4 \(002.Auk/d.png\): add it"),
        ("4 10 4 10 6\n9 1 1 1 1", r"bounding_boxes.txt line 5: image 9 is not in images.txt; remove it"),
        ("4 10 4 10 6\n4 1 1 1 1", r"bounding_boxes.txt line 5: image 4 has a line before"),
    ],
)
def test_cub_lines_that_cannot_be(cub, line, message):
    text = FILES["bounding_boxes.txt"].replace("4 10.0 4.0 10.0 6.0", line)
    with pytest.raises(ValueError, match=message):
        cub(bounding_boxes=text).boxes("test")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train_test_split", "1 1\n2 0\n3 1\n4 x\n", r"train_test_split.txt line 4: 'x' must be 1 \(train\) or 0"),
        ("train_test_split", "1 1\n2 1\n3 1\n4 1\n", r"train_test_split.txt puts no image into test"),
        ("image_class_labels", "1 1\n2 1\n3 2\n4 0\n", r"image_class_labels.txt line 4: class '0' must be 1 or more"),
        ("image_class_labels", "1 1\n2 1\n3 3\n4 3\n", r"image_class_labels.txt: class 2 has no image"),
        ("image_class_labels", "1 1\n2 1\n3 2\n", r"image_class_labels.txt has no line for image 4"),
        ("images", "\n", r"images.txt is empty: lines are 'id file'"),
    ],
)
def test_cub_files_that_do_not_fit(cub, name, text, message):
    source = cub(**{name: text})
    with pytest.raises(ValueError, match=message):
        _ = source.split("test"), source.classes


def test_cub_without_a_file_an_image_or_a_picture(cub, tmp_path):
    with pytest.raises(ValueError, match="CUB has no split 'val'"):
        cub().boxes("val")
    (tmp_path / "images" / NAMES[1]).write_text("no picture")
    with pytest.raises(ValueError, match=r"b.png is annotated and no image that Pillow can open: repair"):
        CUB(str(tmp_path)).boxes("test")
    (tmp_path / "images" / NAMES[1]).unlink()
    with pytest.raises(ValueError, match=r"b.png is annotated and missing"):
        CUB(str(tmp_path)).boxes("test")
    (tmp_path / "bounding_boxes.txt").unlink()
    with pytest.raises(ValueError, match=r"has no bounding_boxes.txt: give the folder"):
        CUB(str(tmp_path)).boxes("test")


def xml(*boxes, **changed):
    sides = [dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)) | changed for box in boxes]
    objects = "".join(
        "<object><name>n01</name><bndbox>" + "".join(f"<{k}>{v}</{k}>" for k, v in side.items()) + "</bndbox></object>"
        for side in sides
    )
    return f"<annotation><filename>x</filename>{objects}</annotation>"


@pytest.fixture
def imagenet(tmp_path):
    """Two test images of 20x10 pixels and their annotations; a keyword replaces or (None) removes one."""

    def build(**changed):
        for name in ("train/n01/t.png", "train/n02/u.png", "val/n01/a.png", "val/n02/b.png"):
            path = tmp_path / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (20, 10)).save(path)
        texts = {"a": xml((1, 2, 5, 6), (0, 0, 20, 10)), "b": xml((3, 3, 9, 9))} | changed
        (tmp_path / "Annotations" / "val").mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            if text is not None:
                (tmp_path / "Annotations" / "val" / f"{name}.xml").write_text(text)
        return imagenet_boxes(str(tmp_path / "Annotations"), Folder(str(tmp_path / "images"), train="train"))

    return build


def test_imagenet_s_objects_each_have_a_box(imagenet, tmp_path):
    boxes = imagenet()
    examples = Folder(str(tmp_path / "images")).split("test")
    assert set(boxes) == set(examples.ids.tolist())
    by_name = {examples.name(i): boxes[int(examples.ids[i])] for i in range(2)}
    assert by_name["val/n01/a.png"].boxes.tolist() == [[1, 2, 5, 6], [0, 0, 20, 10]]
    assert by_name["val/n02/b.png"].boxes.tolist() == [[3, 3, 9, 9]]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"b": None}, r"val/n02/b.png has no b.xml in .*\(1 such images\): add it"),
        ({"c": xml((1, 1, 2, 2))}, r"c.xml annotates an image that split 'test' of .* has not"),
        ({"b": "<annotation>"}, r"b.xml is no XML"),
        ({"b": "<annotation></annotation>"}, r"b.xml holds no <object>"),
        ({"b": xml((1, 1, 2, 2), (3, 3, 3, 9))}, r"b.xml object 2: the box .* has no area"),
        ({"b": xml((1, 1, 22, 2))}, r"b.xml object 1: the box .* stands out of its image of 20x10"),
        ({"b": xml((1, 1, "two", 2))}, r"b.xml object 1: <bndbox> has .*xmax=two.* needs four numbers"),
        ({"b": "<annotation><object/></annotation>"}, r"b.xml object 1: <bndbox> has xmin=None"),
    ],
)
def test_imagenet_annotations_that_cannot_be(imagenet, changed, message):
    with pytest.raises(ValueError, match=message):
        imagenet(**changed)


@pytest.mark.parametrize("size", [(100, 80), (80, 100), (64, 64), (333, 250), (57, 91)])
@pytest.mark.parametrize("transform", [Photographic(), Photographic(crop_pct=1.0, interpolation="bilinear")])
def test_a_box_follows_its_image_through_the_evaluation_transform(size, transform):
    """A white rectangle, through the real transform: what is brighter than half lies in the carried box."""
    width, height = size
    box = [0.4 * width // 1, 0.3 * height // 1, 0.7 * width // 1, 0.8 * height // 1]
    left, top, right, bottom = (int(side) for side in box)
    picture = np.zeros((height, width), dtype=np.uint8)
    picture[top:bottom, left:right] = 255
    seen = transform.evaluation((1, 48, 48))(Image.fromarray(picture))[0] > 127
    rows, columns = seen.nonzero().T
    found = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).double()
    labels = {5: Boxed(torch.tensor([box], dtype=torch.float64), width, height)}
    boxes, dropped = carried(labels, (1, 48, 48), transform)
    assert dropped == 0
    torch.testing.assert_close(boxes[5][0], found, rtol=0, atol=0.6)


def test_a_box_that_is_cropped_away_is_dropped_and_counted():
    """Of 200x100 pixels the middle 100x100 stay: scaled by 1/2, cut at the centre."""
    boxes = torch.tensor([[0, 0, 50, 100], [40, 10, 100, 20], [160, 0, 200, 100], [0, 0, 200, 100]]).double()
    labels = {1: Boxed(boxes, 200, 100), 2: Boxed(boxes[:1], 200, 100)}
    followed, dropped = carried(labels, (3, 50, 50), Photographic(crop_pct=1.0))
    assert followed[1].tolist() == [[0, 5, 25, 10], [0, 0, 50, 50]]
    assert followed[2].shape == (0, 4)
    assert dropped == 3


def test_boxes_are_carried_to_squares_only():
    with pytest.raises(ValueError, match=r"input_size=\[3, 48, 64\]: boxes are carried to square images only"):
        carried({}, (3, 48, 64), Photographic())
