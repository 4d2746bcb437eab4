"""Every mistake in docs/errors.md, made."""

import re
import shlex
from pathlib import Path

import pytest

from tests.pipelines.guides import ROOT, write_world


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("guides")
    write_world(place)
    return place


def mistakes() -> list[tuple[str, str]]:
    """``(command, message)`` of every row of docs/errors.md that begins with a command."""
    page = (ROOT / "docs" / "errors.md").read_text()
    return re.findall(r"^\| `(holdfast [^`]+)` \| (.+?) \| .+ \|$", page, re.M)


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(("command", "message"), mistakes())
def test_a_mistake_says_what_the_page_says(command, message, folder, tmp_path, monkeypatch, capsys):
    from pipelines.cli import MISUSE, main

    for name in ("data", "images", "shards", "mynets.py", "mynets.pt"):
        (tmp_path / name).symlink_to(folder / name)
    before = set(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(shlex.split(command)[1:]) == MISUSE
    pattern = ".*".join(map(re.escape, message.split("…")))
    said = capsys.readouterr().err
    assert re.fullmatch(f"holdfast: {pattern}\n", said), said
    assert set(tmp_path.rglob("*")) == before


def test_the_page_of_errors_is_read():
    assert len(mistakes()) > 40
