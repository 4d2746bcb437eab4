"""Whether the champion has become worse, beyond what chance explains."""

import io
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipelines import storage
from pipelines.errors import Misuse
from pipelines.promotion import judging
from pipelines.retrain import understood
from pipelines.retraining import fallen as module
from pipelines.retraining import manifest
from pipelines.retraining.fallen import CONFIDENCE, compared, fallen
from pipelines.tracking import versions
from pipelines.tracking.registry import ARTEFACT
from tests.pipelines.promotion import movers
from tests.pipelines.retraining.sets import fill, png
from trainers.evaluation.intervals import difference

ROBUST = "robust accuracy (Linf 8/255)"


def found(clean: int, robust: int, beyond: int | None = None, n: int = 1000) -> dict[str, Any]:
    """Of an evaluation: so many of ``n`` images right."""
    after = None if beyond is None else {"robust": {"right": beyond, "n": n}}
    threat = {"norm": "Linf", "eps": 8 / 255, "robust": {"right": robust, "n": n}, "beyond": after}
    return {"clean": {"right": clean, "n": n}, "threats": [threat]}


@pytest.mark.parametrize(
    ("name", "after"), [("clean accuracy", (800, 700)), (ROBUST, (900, 600))], ids=["clean", "robust"]
)
def test_an_accuracy_has_fallen_once_more_than_the_margin_is_sure(name, after):
    before = (900, 700)
    was, now = next((a, b) for a, b in zip(before, after, strict=True) if a != b)
    least, _ = difference(was, 1000, now, 1000, CONFIDENCE)
    assert compared(found(*before), found(*after), least) == []
    (said,) = compared(found(*before), found(*after), least - 1e-9)
    fell = f"{name} fell from {was / 1000:.3f} of 1,000 to {now / 1000:.3f} of 1,000 fresh images"
    assert said == f"{fell}, by at least {least:.3f}, more than when.fallen={least - 1e-9:g}"


def test_what_chance_explains_and_what_rose_is_no_fall():
    assert compared(found(90, 70, n=100), found(85, 65, n=100), 0.0) == []
    assert len(compared(found(900, 700, n=1000), found(850, 650, n=1000), 0.0)) == 2
    assert compared(found(800, 600), found(900, 700), 0.0) == []


def test_the_attack_beyond_has_the_last_word():
    assert compared(found(900, 700, 650), found(900, 600, 650), 0.02) == []
    (said,) = compared(found(900, 700, 650), found(900, 700, 500), 0.02)
    assert said.startswith(f"{ROBUST} fell from 0.650 of 1,000 to 0.500 of 1,000 fresh images")


class Asked:
    """A champion that is asked about fresh images, and an evaluation that says what it is told to."""

    def __init__(self, uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name = f"model-{uuid.uuid4().hex[:8]}"
        self.uri, self.fresh, self.evaluated = uri, fill(str(folder / "fresh")), list[str]()
        self._folder = folder
        movers.model(uri, self.name, count=1)
        versions.tag(uri, self.name, 1, {ARTEFACT: "a" * 64})
        monkeypatch.setattr(module, "evaluate", self._evaluate)

    def _evaluate(self, config: dict[str, Any], console: Console, debug: bool, what: str) -> dict[str, Any]:
        assert config["model"]["source"] == f"models:/{self.name}/1"
        self.evaluated.append(config["data"]["path"] or "the policy's")
        return found(900, 700) if config["data"]["path"] is None else found(880, 500)

    def __call__(self, *lines: str, margin: float = 0.02, ask: bool = True) -> list[str] | None:
        places = [f"storage={self._folder}", f"tracking.uri={self.uri}", f"register_as={self.name}"]
        fresh = [f"when.fresh=[{','.join(lines)}]", f"when.fallen={margin}"]
        job = understood(["recipe=digits_pgd", *places, *fresh], Console(file=io.StringIO()), None)
        judged = judging.judged(job.gate(), None)
        return fallen(job, versions.find(self.uri, self.name, 1), judged, manifest.take, ask)


@pytest.fixture
def asked(tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(tracking_uri, tmp_path, monkeypatch)


def test_the_same_images_are_asked_about_once(asked):
    lines = ["data=folder", f"data.path={asked.fresh}"]
    assert asked(*lines, ask=False) is None
    assert not asked.evaluated
    first = asked(*lines)
    assert [said.partition(" fell")[0] for said in first] == [ROBUST]
    assert asked.evaluated == ["the policy's", asked.fresh]
    assert asked(*lines, ask=False) == asked(*lines) == first
    assert len(asked.evaluated) == 2
    assert asked(*lines, margin=0.5) == []
    storage.write(f"{asked.fresh}/test/cat/9.png", png(77))
    assert asked(*lines) == first
    assert len(asked.evaluated) == 6


def test_without_fresh_images_nothing_is_evaluated(asked):
    assert asked() == []
    assert not asked.evaluated


@pytest.mark.parametrize("line", ["data.pith=x", "model.source=x", "threats.Linf=0.3", "threats.L2=0.5"])
def test_what_an_evaluation_does_not_know_is_told_as_what_it_is(asked, line):
    with pytest.raises(Misuse, match=rf"^when\.fresh: {re.split('[.=]', line)[0]}"):
        asked(line)
