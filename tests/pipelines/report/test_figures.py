"""Numbers as words, curves and classes as positions."""

import pytest

from pipelines.report import classes, curve, words
from tests.pipelines.report import samples


@pytest.mark.parametrize(
    ("share", "n", "said"),
    [(0.8359, 64, "84 %"), (0.8359, 128, "83.6 %"), (0.83594, 5000, "83.59 %"), (0, 128, "0.0 %"),
     (1, 5000, "100.00 %"), (9999.5 / 10000, 10000, "99.995 %"), (0.0004, 1000, "0.04 %"), (1 - 1e-12, 50, "100 %")],
)  # fmt: skip
def test_a_share_has_the_digits_of_its_n_and_is_never_rounded_to_all_or_nothing(share, n, said):
    assert words.percent(share, n).replace(words.NBSP, " ") == said


@pytest.mark.parametrize(
    ("value", "said", "other"),
    [(8 / 255, "8/255", "0.0314"), (0.1, "0.1", "25.5/255"), (1 / 255, "1/255", "0.00392"),
     (0.0314, "0.0314", "8.007/255"), (0.3, "0.3", "76.5/255"), (1.0, "1", "255/255")],
)  # fmt: skip
def test_eps_is_written_as_people_do(value, said, other):
    assert words.eps(value) == said
    assert words.in_other_unit("Linf", value) == other
    assert words.in_other_unit("L2", value) == ""


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.034, "0.034 s"),
        (4.26, "4.3 s"),
        (42.4, "42 s"),
        (59.7, "1 min 00 s"),
        (3599.6, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds, said):
    assert words.duration(seconds).replace(words.NBSP, " ") == said


def test_dates_are_in_universal_time():
    assert words.moment("2026-11-21T15:30:00+01:00") == "2026-11-21 14:30 UTC"
    assert words.moment("last week") == "last week"


@pytest.mark.parametrize("end", [0.013, 0.1, 0.255, 1.0, 16.3, 255.0])
def test_ticks_are_round_numbers_from_0_that_fill_the_axis(end):
    ticks = curve.ticks(end)
    assert ticks[0] == 0
    assert end - ticks[1] < ticks[-1] <= end * 1.001
    assert 3 <= len(ticks) <= 7


def test_a_curve_is_drawn_where_its_numbers_are():
    evaluation = samples.digits()
    given, drawn = evaluation["curves"][0], curve.curves(evaluation)[0]
    for (x, y), eps, accuracy in zip(drawn.dots, given["eps"], given["accuracy"], strict=True):
        assert x == pytest.approx(100 * eps / (1.02 * 0.4))
        assert y == pytest.approx(100 - 100 * accuracy)
    mark = drawn.marks[0]
    low, high = evaluation["threats"][0]["robust"]["interval"]
    assert (mark.text, mark.top, mark.top + mark.height) == (
        "eps 0.1",
        pytest.approx(100 - 100 * high),
        pytest.approx(100 - 100 * low),
    )
    assert mark.at == pytest.approx(drawn.dots[4][0])
    assert drawn.levels[-1].at / drawn.ticks[-1].at == pytest.approx(
        float(drawn.levels[-1].text) / 255 / float(drawn.ticks[-1].text)
    )
    assert len(drawn.band.split()) == 2 * len(given["eps"])


def test_a_curve_reaches_to_an_evaluated_eps_beyond_it_and_other_norms_are_not_marked():
    evaluation = samples.imagenet()
    evaluation["threats"][2]["eps"] = 32 / 255
    linf, l2 = curve.curves(evaluation)
    assert [mark.text for mark in linf.marks] == ["eps 2/255", "eps 4/255", "eps 32/255"]
    assert max(mark.at for mark in linf.marks) < 100
    assert [mark.text for mark in l2.marks] == ["eps 2"]
    assert l2.levels == ()
    assert l2.unit == "L2 norm, pixels in [0, 1]"


def test_few_classes_keep_their_order_and_one_without_images_has_no_share():
    rows = [("cat", 20, 18, 3), ("dog", 0, 0, 0), ("eel", 40, 40, 40)]
    evaluation = samples.evaluation(
        60, 60, 58, [samples.threat("L2", 0.5, 60, 58, {"apgd-ce": 15}, rows)], ["cat", "dog", "eel"]
    )
    found = classes.classes(evaluation)[0]
    assert [row.name for row in found.rows] == ["cat", "dog", "eel"]
    assert (found.rows[1].robust, found.rows[1].interval_text) == (None, "no image")
    assert (found.rows[0].clean, found.rows[0].robust) == (pytest.approx(90), pytest.approx(15))
    assert found.bins == ()
    assert found.note == ""


def test_many_classes_are_the_worst_the_best_and_a_histogram_of_all():
    evaluation = samples.imagenet()
    every = evaluation["threats"][0]["per_class"]
    found = classes.classes(evaluation)[0]
    shares = sorted(one["robust"] / one["n"] for one in every)
    assert [row.robust for row in found.worst] == [pytest.approx(100 * share) for share in shares[:15]]
    assert [row.robust for row in found.best] == [pytest.approx(100 * share) for share in shares[::-1][:5]]
    assert found.worst_caption == "15 of the least robust classes, others tie"
    assert [b.count for b in found.bins] == [sum(one["robust"] == i for one in every) for i in range(6)]
    assert max(b.height for b in found.bins) == 100
    assert "With 5 images a class" in found.note
    assert f"{sum(share == 0 for share in shares)} of them at 0" in found.summary


def test_many_classes_of_many_images_are_counted_in_tenths():
    rows = [(f"c{i}", 50, 50, i) for i in range(51)]
    evaluation = samples.evaluation(
        2550, 2550, 2550, [samples.threat("L2", 0.5, 2550, 2550, {"x": 1275}, rows)], ["c"] * 51
    )
    found = classes.classes(evaluation)[0]
    assert [b.count for b in found.bins] == [5] * 9 + [6]
    assert found.worst_caption == "15 of the least robust classes"
    assert found.note == ""
