"""What `submit` can be told, and what it refuses."""

from pathlib import Path

import pytest

from k8s.errors import Misuse
from k8s.settings import Settings, listing, ray_address, read


def test_the_command_line_wins_over_the_cluster_file(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("image: a/b:1\nnamespace: robust\nretries: 5\nsecrets: [tracking]\nenv: {A: 1, B: two}\n")
    found = read([f"cluster={file}", "retries=0", "env.B=three", "queue=null"])
    assert (found.image, found.namespace, found.retries, found.queue) == ("a/b:1", "robust", 0, None)
    assert found.secrets == ("tracking",)
    assert found.env == {"A": "1", "B": "three"}


def test_text_of_the_command_line_becomes_what_the_schema_has() -> None:
    found = read(["again=true", "nodes=3", "deadline_minutes=1.5", "secrets=[a, b]", "team=null", "env.X=k=v"])
    assert (found.again, found.nodes, found.deadline_minutes) == (True, 3, 1.5)
    assert (found.secrets, found.team, found.env) == (("a", "b"), None, {"X": "k=v"})
    assert read(["secrets=one"]).secrets == ("one",)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["imagee=a/b:1"], "imagee: unknown setting; nearest: image"),
        (["image"], "'image' is not a setting: write KEY=VALUE"),
        (["nodes=two"], "nodes=two must be a whole number"),
        (["nodes=0"], "nodes=0 must be at least 1"),
        (["again=maybe"], "again=maybe must be true or false"),
        (["deadline_minutes=0"], "deadline_minutes=0 must be a number above 0; 1440 is usual"),
        (["keep_minutes=5"], "keep_minutes=5 must be at least 10: whoever waits for a job has to see its end"),
        (["env.AWS_SECRET_ACCESS_KEY=x"], "env.AWS_SECRET_ACCESS_KEY: a secret would stand in the open"),
        (["secrets=[a"], "secrets=.a must be a list"),
        (["deadline_minutes=inf"], "deadline_minutes=inf must be a number above 0"),
        (["env=x"], "env=x must be given as env.KEY=VALUE"),
        (["backend=ray", "queue=gpu"], "queue=gpu: backend=ray cannot keep it"),
        (["backend=local", "retries=3"], "retries=3: backend=local cannot keep it"),
        (["folder=x"], "folder=x: backend=kubernetes cannot keep it"),
        (["backend=slurm"], "backend=slurm is unknown; choose one of kubernetes, ray, local"),
        (["cluster=nowhere.yaml"], "cluster=nowhere.yaml cannot be read"),
    ],
)
def test_a_mistake_names_setting_value_and_remedy(words: list[str], says: str) -> None:
    with pytest.raises(Misuse, match="^" + says.replace("(", r"\(").replace("'", ".")):
        read(words)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("imagee: a/b:1", "imagee is an unknown setting; nearest: image"),
        ("- image", "one setting a line"),
        ("cluster: other.yaml", "no other cluster"),
        ("image: [", "cannot be read"),
    ],
)
def test_a_cluster_file_is_checked_as_the_command_line_is(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(content)
    with pytest.raises(Misuse, match=says):
        read([f"cluster={file}"])


def test_every_setting_says_what_it_is() -> None:
    for line in listing().splitlines():
        assert line[44:].strip(), line


def test_the_ray_address_is_a_setting_or_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(Misuse, match="address=ray://head:10001: backend=ray needs the dashboard"):
        ray_address(Settings(backend="ray"))
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265/")
    assert ray_address(Settings(backend="ray")) == "http://head:8265"
    assert ray_address(Settings(backend="ray", address="https://other")) == "https://other"
