"""Two evaluations of the same examples, made by hand so that every number is known."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from pipelines import storage
from pipelines.compare import Comparison, compare
from pipelines.errors import Misuse
from pipelines.evaluation.records import Writer, read
from trainers.evaluation.intervals import mcnemar, paired_difference

CLASSES = ["cat", "dog", "owl"]
ATTACK = {"name": "AutoAttack standard", "version": "standard", "mode": "fast", "seed": 0, "batch_size": 64}


def evaluation(
    folder: Path,
    fates: str,
    model: str = "a",
    threats: Sequence[tuple[str, float]] = (("Linf", 8 / 255),),
    ids: Sequence[int] | None = None,
    beyond: str | None = None,
    attack: dict | None = None,
    doubts: Sequence[str] = (),
    labels: int = 0,
    data: str = "cd" * 32,
) -> Path:
    """A letter an example: ``.`` withstands, ``w`` is wrong as it is, ``c`` falls to apgd-ce, ``s`` to square.
    ``beyond``: ``m`` where malt fools one more."""
    by = {".": "", "w": "clean", "c": "apgd-ce", "s": "square"}
    said = {
        "name": f"eval-{model}",
        "model": {"source": f"models:/{model}/1", "digest": model * 64},
        "data": {"name": "pets", "split": "test", "digest": data, "classes": CLASSES},
        "attack": ATTACK | (attack or {}),
    }
    with Writer(folder / "records.parquet", said, group=3) as out:
        for norm, eps in threats:
            for place, letter in enumerate(fates):
                label = (place + labels) % 3
                row = {"id": list(ids)[place] if ids else place, "name": f"pet {place} [x]", "label": label}
                row |= {"clean": (label + (letter == "w")) % 3, "norm": norm, "eps": eps, "robust": letter == "."}
                row |= {"attacked": (label + (letter != ".")) % 3, "attack": by[letter], "distance": 0.0}
                if beyond:
                    fooled = beyond[place] == "m"
                    row |= {"robust_beyond": letter == "." and not fooled, "attack_beyond": "malt" if fooled else ""}
                out.write([row])
    page = {"model": said["model"], "doubts": [{"name": name} for name in doubts], "checked": ["zero gradients"]}
    (folder / "evaluation.json").write_text(json.dumps(page))
    return folder


def compared(a: Path, b: Path, **settings: str) -> tuple[Comparison, str]:
    page = io.StringIO()
    found = compare(str(a), str(b), Console(file=page, width=120, highlight=False), **settings)
    return found, page.getvalue()


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A withstands 4 of 12, B 7: B alone 4 (A falls to apgd-ce 3, is wrong 1), A alone 1 (B falls to square)."""
    a = evaluation(tmp_path / "a", "....ccccwwsc")
    b = evaluation(tmp_path / "b", "...s...c.cww", model="b")
    return a, b


def test_the_numbers_by_hand(pair):
    found, _ = compared(*pair)
    clean, robust = found.measures
    assert (found.n, found.only_a, found.only_b, found.warnings) == (12, 0, 0, ())
    assert (clean.what, clean.norm, clean.eps) == ("clean", None, None)
    assert (clean.paired.a, clean.paired.b, clean.paired.gained, clean.paired.lost) == (10, 10, 2, 2)
    assert (robust.what, robust.norm, robust.eps) == ("AutoAttack standard", "Linf", 8 / 255)
    assert (robust.paired.a, robust.paired.b, robust.paired.gained, robust.paired.lost) == (4, 7, 4, 1)
    assert robust.paired.difference == 0.25
    assert robust.paired.interval == paired_difference(4, 1, 12)
    assert robust.paired.p == mcnemar(4, 1) == 0.375
    assert robust.only_b.fooled_by == {"apgd-ce": 3, "clean": 1}
    assert robust.only_a.fooled_by == {"square": 1}
    assert [e.id for e in robust.only_b.first] == [4, 5, 6, 8]
    assert robust.only_a.first[0].fate == "is fooled by square, takes it for dog"
    assert robust.only_b.first[0].fate == "is fooled by apgd-ce, takes it for owl"
    assert robust.only_b.first[-1].fate == "takes it for cat as it is"
    assert {(c.label, c.n, c.a, c.b) for c in robust.classes} == {("cat", 4, 2, 2), ("dog", 4, 1, 2), ("owl", 4, 1, 3)}
    assert robust.classes[0].label == "owl"
    assert robust.classes[0].interval == paired_difference(2, 0, 4)


def test_the_page_says_it_in_words(pair):
    _, page = compared(*pair)
    for words in (
        "A  eval-a: models:/a/1, AutoAttack standard",
        "AutoAttack standard, Linf 8/255",
        "B withstands 3 more of 12 examples at Linf 8/255; the interval of B - A, [-11.0, +53.8] points, holds 0",
        "A and B get equally many of 12 examples right",
        "classes that differ most, A and B: owl (1 and 3 of 4), dog (1 and 2 of 4)",
        "only B: 4 (A: apgd-ce 3, wrong as it is 1)",
        "3 pet 3 [x], label cat: B is fooled by square, takes it for dog",
    ):
        assert words in page, words
    line = next(line for line in page.splitlines() if line.strip().startswith("AutoAttack standard, Linf"))
    assert line.split()[4:] == ["0.333", "0.583", "1", "4", "+25.0", "[-11.0,", "+53.8]", "0.38"]


def test_a_sure_difference_is_called_one(tmp_path):
    a = evaluation(tmp_path / "a", "c" * 20 + "." * 20)
    b = evaluation(tmp_path / "b", "." * 40, model="b")
    assert "B withstands 20 more of 40 examples at Linf 8/255" in (page := compared(a, b)[1])
    assert "points, leaves out 0." in page
    assert "  and 15 more\n" in page
    assert "A withstands 20 more of 40 examples" in compared(b, a)[1]


def test_the_other_way_round_is_the_mirror_image(pair):
    there, _ = compared(*pair)
    back, _ = compared(*reversed(pair))
    for m, w in zip(there.measures, back.measures, strict=True):
        assert (m.paired.gained, m.paired.a, m.paired.p) == (w.paired.lost, w.paired.b, w.paired.p)
        assert m.paired.interval == pytest.approx((-w.paired.interval[1], -w.paired.interval[0]))
        assert m.only_a == w.only_b


def test_parts_add_up_on_any_evaluations(tmp_path):
    random = np.random.default_rng(3)
    for trial in range(5):
        fates = ["".join(random.choice(list(".wcs"), 100)) for _ in "ab"]
        a = evaluation(tmp_path / f"a{trial}", fates[0])
        b = evaluation(tmp_path / f"b{trial}", fates[1], "b")
        for measure in compared(a, b)[0].measures:
            pair = measure.paired
            assert (sum(c.n for c in measure.classes), sum(c.a for c in measure.classes)) == (100, pair.a)
            assert sum(c.b for c in measure.classes) == pair.b
            assert (measure.only_b.n, measure.only_a.n) == (pair.gained, pair.lost)
            assert sum(measure.only_b.fooled_by.values()) == pair.gained


def test_a_model_beside_itself_differs_in_nothing(pair):
    found, page = compared(pair[0], pair[0] / "records.parquet")
    for measure in found.measures:
        assert (measure.paired.gained, measure.paired.lost, measure.paired.p) == (0, 0, 1)
        assert measure.only_a.first == measure.only_b.first == ()
    assert found.warnings == ("A and B are the same model: what differs is the attack's",)
    assert "only A:" not in page


def test_examples_that_one_alone_has_are_counted_and_left_out(tmp_path):
    a = evaluation(tmp_path / "a", "..cc..", ids=[3, 1, 4, 0, 5, 9])
    b = evaluation(tmp_path / "b", "c..", model="b", ids=[3, 1, 4])
    found, page = compared(a, b)
    assert (found.n, found.only_a, found.only_b) == (3, 3, 0)
    assert (found.measures[1].paired.gained, found.measures[1].paired.lost) == (1, 1)
    assert "3 examples are in A alone, 0 in B alone" in page


def test_only_common_threats_are_compared_and_the_others_named(tmp_path):
    a = evaluation(tmp_path / "a", "..c", threats=[("L2", 0.5), ("Linf", 0.03137254901960784)], beyond="m..")
    b = evaluation(tmp_path / "b", ".cc", model="b", threats=[("Linf", 8 / 255 * (1 + 1e-12)), ("Linf", 0.1)])
    found, page = compared(a, b)
    assert [m.title for m in found.measures] == ["clean", "AutoAttack standard, Linf 8/255"]
    assert found.warnings == (
        "only A was attacked at L2 0.5",
        "only A was attacked beyond AutoAttack at Linf 8/255",
        "only B was attacked at Linf 0.1",
    )
    assert "only B was attacked at Linf 0.1" in page


def test_attacks_beyond_autoattack_are_compared_where_both_had_them(tmp_path):
    a = evaluation(tmp_path / "a", "....cc", beyond="mm....")
    b = evaluation(tmp_path / "b", "...c..", model="b", beyond="....m.")
    clean, robust, beyond = compared(a, b)[0].measures
    assert (robust.paired.a, robust.paired.b) == (4, 5)
    assert beyond.title == "AutoAttack standard and beyond, Linf 8/255"
    assert (beyond.paired.a, beyond.paired.b, beyond.paired.gained, beyond.paired.lost) == (2, 4, 3, 1)
    assert beyond.only_b.fooled_by == {"malt": 2, "apgd-ce": 1}
    assert beyond.only_b.first[0].fate == "is fooled by malt"
    assert clean.paired.p == 1


def test_other_attack_settings_and_doubts_are_said(tmp_path):
    a = evaluation(tmp_path / "a", "..c", attack={"seed": 3, "batch_size": 8}, doubts=["zero gradients"])
    b = evaluation(tmp_path / "b", ".cc", model="b", attack={"mode": "reference", "batch_size": 16})
    settings, doubts = compared(a, b)[0].warnings
    assert "seed=3 and 0, mode=fast and reference)" in settings
    assert "batch_size" not in settings
    assert doubts.startswith("the evaluation of A has doubts (zero gradients)")
    c = evaluation(tmp_path / "c", ".cc", model="c", attack={"mode": "reference", "batch_size": 8})
    assert "(batch_size=16 and 8)" in compared(b, c)[0].warnings[0]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"labels": 1}, r"example 0 \(pet 0 \[x\]\) has label 0 in .*, 1 in .*, and 2 more differ: evaluate both"),
        ({"data": "ef" * 32}, r"is of pets test \(cdcdcdcdcd\), .*\(efefefefef\): other images"),
        ({"threats": [("L2", 0.5)]}, r"nothing in common: 3 examples at Linf 8/255 in the one, 3 examples at L2 0.5"),
        ({"ids": [7, 8, 9]}, "nothing in common"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, other, words):
    a = evaluation(tmp_path / "a", "..c")
    b = evaluation(tmp_path / "b", "..c", model="b", **other)
    with pytest.raises(Misuse, match=words):
        compared(a, b, json=str(tmp_path / "out.json"))
    assert not (tmp_path / "out.json").exists()


def test_a_broken_or_strange_page_beside_the_records_is_refused(pair):
    a, b = pair
    (b / "evaluation.json").write_text((a / "evaluation.json").read_text())
    with pytest.raises(Misuse, match="is of another model than"):
        compared(a, b)
    for text in ("{", "[]", "{}"):
        (b / "evaluation.json").write_text(text)
        with pytest.raises(Misuse, match=r"evaluation.json is not whole"):
            compared(a, b)
    (b / "evaluation.json").unlink()
    assert compared(a, b)[0].b.doubts is None


def test_the_outcome_for_a_script_is_whole_or_not_there(pair, tmp_path):
    found, _ = compared(*pair, json=str(tmp_path / "out.json"))
    left = json.loads((tmp_path / "out.json").read_text())
    assert left["measures"][1]["paired"]["p"] == 0.375
    assert left["measures"][1]["only_b"]["first"][0]["id"] == 4
    assert left["a"]["model"]["source"] == "models:/a/1"
    assert (left["n"], left["b"]["doubts"]) == (found.n, [])
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "out.json"}
    with pytest.raises(Misuse, match="its folder is not there or not writable"):
        compared(*pair, json=str(tmp_path / "nowhere" / "out.json"))


def test_what_is_no_evaluation_is_refused(pair, tmp_path):
    with pytest.raises(Misuse, match="is not there: give the folder that `holdfast evaluate` left"):
        compared(pair[0], tmp_path / "absent")
    with pytest.raises(Misuse, match="only folders and s3"):
        compare("gs://bucket/a", str(pair[0]), Console(file=io.StringIO()))


def test_evaluations_may_lie_in_a_bucket(pair, bucket):
    for name, folder in zip("ab", pair, strict=True):
        storage.upload(folder, f"s3://{bucket}/deep/{name}")
    here = compared(*pair)[0]
    for b in (f"s3://{bucket}/deep/b", f"s3://{bucket}/deep/b/", f"s3://{bucket}/deep/b/records.parquet"):
        found = compare(f"s3://{bucket}/deep/a", b, Console(file=io.StringIO()))
        assert found.measures == here.measures
        assert found.b.doubts == ()
    assert len(read(f"s3://{bucket}/deep/a")) == 12
    with pytest.raises(Misuse, match=rf"s3://{bucket}/deep/records.parquet is not there"):
        read(f"s3://{bucket}/deep")
