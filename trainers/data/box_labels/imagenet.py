"""ImageNet's boxes: an XML file an image, in the layout of PASCAL VOC."""

from pathlib import PurePosixPath
from xml.etree import ElementTree

import torch
from torch import Tensor

from trainers.data.box_labels.geometry import Boxed, checked, image_size
from trainers.data.files import Files, LocalFiles, listed
from trainers.data.folder import Folder

SIDES = ("xmin", "ymin", "xmax", "ymax")


def imagenet_boxes(
    annotations: str, images: Folder, split: str = "test", files: Files | None = None
) -> dict[int, Boxed]:
    """By the id that the example has in ``images``: the boxes of every ``<object>`` in ``annotations/**/<image>.xml``,
    ``<bndbox>`` with ``xmin, ymin, xmax, ymax`` in pixels.

    Files are matched by name without suffix, wherever they lie.  Opens the head of each image.

    Source: Russakovsky et al. 2015 (1409.0575).
    Errors: ``ValueError`` with file, value and remedy for an annotation without its image, an image without its
    annotation, a file that is no such XML, and a box without area or outside its image.
    """
    files = files or LocalFiles()
    examples = images.split(split)
    names = [examples.name(i) for i in range(len(examples))]
    found = _by_stem([p for p in listed(files, annotations, "annotations") if p.endswith(".xml")], annotations)
    own = _by_stem(names, images.path)
    if strange := sorted(set(found) - set(own)):
        raise ValueError(
            f"{found[strange[0]]} annotates an image that split {split!r} of {images.path} has not "
            f"({len(strange)} such files): add the image, or give the annotations of this split"
        )
    if bare := sorted(set(own) - set(found)):
        raise ValueError(
            f"{own[bare[0]]} has no {bare[0]}.xml in {annotations} ({len(bare)} such images): add it, or leave the "
            "image out"
        )
    ids = dict(zip(names, examples.ids.tolist(), strict=True))
    root = images.path.rstrip("/")
    return {
        ids[name]: _boxed(files, found[stem], *image_size(images.files, f"{root}/{name}")) for stem, name in own.items()
    }


def _by_stem(paths: list[str], root: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in paths:
        stem = PurePosixPath(path).stem
        if stem in found:
            raise ValueError(f"{root} has two files called {stem}: {found[stem]} and {path}; give each its own name")
        found[stem] = path
    return found


def _boxed(files: Files, path: str, width: int, height: int) -> Boxed:
    try:
        with files.open(path) as file:
            root = ElementTree.fromstring(file.read())
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is no XML ({error}): repair it") from error
    objects = root.findall("object")
    if not objects:
        raise ValueError(f"{path} holds no <object>: annotate one, or leave the image out")
    boxes = [
        checked(_sides(thing, f"{path} object {k}"), width, height, f"{path} object {k}")
        for k, thing in enumerate(objects, 1)
    ]
    return Boxed(_tensor(boxes), width, height)


def _tensor(boxes: list[tuple[float, ...]]) -> Tensor:
    return torch.tensor(boxes, dtype=torch.float64)


def _sides(thing: ElementTree.Element, where: str) -> tuple[float, float, float, float]:
    texts = [thing.findtext(f"bndbox/{side}") for side in SIDES]
    try:
        left, top, right, bottom = (float(text or "") for text in texts)
    except ValueError as error:
        shown = ", ".join(f"{side}={text}" for side, text in zip(SIDES, texts, strict=True))
        raise ValueError(f"{where}: <bndbox> has {shown}, and needs four numbers; correct it") from error
    return left, top, right, bottom
