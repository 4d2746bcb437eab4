"""docs/circle.md from top to bottom: every line of it as written, but for budgets and a lenient policy."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from pipelines.cli import OK, REFUSED, main
from pipelines.tracking import audit, lease, versions
from tests.pipelines.guides import ROOT, blocks, files
from trainers.evaluation import doubts

PAGE = ROOT / "docs" / "circle.md"
URI = "sqlite:///runs/mlflow.db"
SMALL = """epochs: 2
batch_size: 16
alarm: {examples: 16}
evaluation: {examples: 16, attack: {steps: 2}}
model: {arguments: {blocks: 1, width: 4}}
"""
LENIENT = """
evaluation: [data=till, threats.Linf=0.1, examples=3]
clean: {rule: any}
robust: {rule: any}
doubts: [%s]
"""
BUDGETS = {
    "evaluate": ("attack=pgd", "attack.steps=2", "beyond=none", "report.pictures=0", "doubts=false"),
    "tune": ("search.trials=1", "search.halving.use=false", "seeds=1", "examples=3"),
}


def write_files() -> None:
    for name, text in files(PAGE):
        if "/recipe/" in name:
            text += SMALL
        if "/policy/" in name:
            text = LENIENT % ", ".join(f'"{check}"' for check in doubts.CHECKS)
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def run(line: str) -> int:
    """The line's exit code."""
    if not line.startswith("holdfast "):
        return subprocess.run(line, shell=True, check=False).returncode
    arguments = shlex.split(line)[1:]
    return main([*arguments, *BUDGETS.get(arguments[0], ())])


def champion() -> int:
    return versions.aliases(URI, "till")["champion"]


@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("ray_cluster")
def test_the_circle_closes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (program,) = [text for page, text in blocks("python") if page == PAGE.name]
    exec(compile(program, PAGE.name, "exec"), {})
    write_files()
    lines = [line for page, text in blocks("sh") if page == PAGE.name for line in text.splitlines()]
    said, serving = [], []
    for before, line in zip(["", *lines], lines, strict=False):
        code = run(line)
        out, error = capsys.readouterr()
        said.append(out)
        assert code == (REFUSED if before == "mv till/train/7 lost" else OK), f"{line}: {error}"
        serving.append(versions.aliases(URI, "till").get("champion"))

    def about(pattern: str) -> list[int]:
        return [i for i, line in enumerate(lines) if re.search(pattern, line)]

    (trained, _, promoted), (searched, challenged) = range(3), about("tune |promote name=till policy")
    first, again, broken, fresh = about("retrain ")[:4]
    assert serving[trained] is None
    assert serving[promoted] == 1
    assert serving[searched] == 1
    assert serving[challenged] == 2
    assert serving[first] == serving[again] == serving[broken] == 3
    assert "new recipe" in said[first]
    assert "nothing to do: data, recipe and code are those of the champion till/3" in said[again]
    assert "no images any more of class 7" in said[broken]
    assert serving[fresh] == 4
    assert "new data" in said[fresh]
    assert json.loads(Path("night.json").read_text())["outcome"] == "promoted"
    assert said[about("schedule ")[0]].startswith("17 3 * * * cd ")
    assert serving[-1] == 3  # rolled back
    assert [record.state for record in lease.records(URI, "till")] == [lease.DONE] * 3
    assert [record.state for record in audit.records(URI, "till")] == [audit.DONE] * 5

    capsys.readouterr()
    assert run(lines[fresh]) == OK
    assert "till/4 was rolled back (it reads sevens as ones)" in capsys.readouterr().out
    assert champion() == 3
