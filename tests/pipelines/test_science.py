"""Which code computes: another digest for another line of it, and for nothing else."""

import shutil
from pathlib import Path

import pytest

import trainers
from pipelines import science

HERE = Path(trainers.__file__).parent


@pytest.fixture(autouse=True)
def _anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process read once it keeps."""
    monkeypatch.setattr(science, "_package", science._package.__wrapped__)


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``trainers``, installed elsewhere."""
    place = tmp_path / "elsewhere" / "trainers"
    shutil.copytree(HERE, place, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(trainers.__spec__, "submodule_search_locations", [str(place)])
    return place


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of a user's, beside a module."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("")
    (tmp_path / "mine" / "losses.py").write_text("WEIGHT = 1\n")
    (tmp_path / "single.py").write_text("WEIGHT = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_it_is_the_same_wherever_the_code_is_installed(monkeypatch, copy):
    there = science.digest()
    monkeypatch.setattr(trainers.__spec__, "submodule_search_locations", [str(HERE)])
    assert science.digest() == there
    assert len(there) == 64


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("losses.py", True),
        ("objectives/trades.py", True),
        ("objectives/new.py", True),
        ("evaluation/intervals.py", False),
        ("evaluation/new.py", False),
        ("data/notes.txt", False),
    ],
)
def test_a_line_of_what_trains_changes_it_and_of_what_only_judges_does_not(copy, name, other):
    before = science.digest()
    with (copy / name).open("a") as file:
        file.write("# another line\n")
    assert (science.digest() != before) is other


def test_a_file_moved_is_another_one(copy):
    before = science.digest()
    (copy / "losses.py").rename(copy / "costs.py")
    assert science.digest() != before


def test_what_a_user_trusted_computes_too(own):
    plain, with_mine = science.digest(), science.digest(["mine"])
    assert plain != with_mine == science.digest(("mine",))
    (own / "mine" / "losses.py").write_text("WEIGHT = 2\n")
    assert science.digest() == plain
    assert science.digest(["mine"]) != with_mine


def test_a_module_may_be_trusted_and_the_order_does_not_matter(own):
    both = science.digest(["mine", "single"])
    assert both == science.digest(["single", "mine"]) != science.digest(["mine"])
    (own / "single.py").write_text("WEIGHT = 2\n")
    assert science.digest(["mine", "single"]) != both
    assert science.digest(["absent"]) != science.digest()
