"""Pools: the shipped ones, and those of a user's own."""

from pathlib import Path

import pytest

from k8s import pools
from k8s.errors import Misuse


@pytest.mark.parametrize("name", sorted(pools.names()))
def test_a_shipped_pool_says_what_it_is_and_can_be_read(name: str) -> None:
    assert (pools.SHIPPED / f"{name}.yaml").read_text().startswith("# ")
    pool = pools.load(name)
    assert pool.selector[pools.LABEL] == name
    if pool.gpus:
        assert {"key": pools.GPU, "value": "present", "effect": "NoSchedule"} in list(pool.taints), (
            "others would take it"
        )
        cpus, memory = pool.share(pool.gpus)
        assert (cpus, memory) == (int(pool.cpus), int(pool.memory))
        assert pool.share(1)[0] * pool.gpus <= pool.cpus


def test_a_pool_of_your_own_hides_a_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "cpu.yaml").write_text("instance_types: [m1]\ncapacity: on-demand\ncpus: 2\nmemory: 4\n")
    assert pools.load("cpu", tmp_path).instance_types == ("m1",)
    assert pools.load("a10g-spot", tmp_path).gpus == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("instance_types: [m1]\ncapacity: cheap\ncpus: 2\nmemory: 4", "capacity=cheap; choose spot or on-demand"),
        ("instance_types: []\ncapacity: spot\ncpus: 2\nmemory: 4", "must be given and above 0"),
        ("instance_types: [m1]\ncapacity: spot\ncpus: 2\nmemory: 4\ngpus: 1", "gpus is unknown; nearest: gpu"),
        ("instance_types: [m1]\ncapacity: spot\nmemory: 4", "does not describe a pool"),
        (
            "capacity: spot\ncpus: 2\nmemory: 4\ngpu: {type: L4, count: 0, memory: 24}\ninstance_types: [g]",
            "gpu.count=0",
        ),
        ("just words", "does not describe a pool"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_file_that_describes_no_pool_is_refused(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(Misuse, match=says):
        pools.load("mine", tmp_path)


def test_an_unknown_pool_and_folder_are_refused() -> None:
    with pytest.raises(Misuse, match="pool=a10-spot is unknown; nearest: a10g-spot"):
        pools.load("a10-spot")
    with pytest.raises(Misuse, match="pools=nowhere: no such folder"):
        pools.load("cpu", "nowhere")
