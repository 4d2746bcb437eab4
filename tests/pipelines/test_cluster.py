"""What a cluster can hold, counted node by node."""

from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray._private.state import state

from pipelines import cluster
from pipelines.errors import Misuse

C16: dict[str, float] = {"CPU": 16.0, "memory": 1e9}
G2: dict[str, float] = {"CPU": 16.0, "GPU": 2.0}
HEAD: dict[str, float] = {"memory": 1e9}


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpu", "count"),
    [
        ([C16, C16], 32, False, 0),
        ([C16, C16], 16, False, 2),
        ([C16, C16], 10, False, 2),
        ([C16, C16], 5, False, 6),
        ([C16, {"CPU": 4.0}], 3, False, 6),
        ([C16], 0.5, False, 32),
        ([HEAD, C16], 1, False, 16),
        ([HEAD], 1, False, 0),
        ([G2, C16], 1, True, 2),
        ([G2, G2], 8, True, 4),
        ([G2, G2], 9, True, 2),
        ([{"CPU": 1.0, "GPU": 8.0}], 1, True, 1),
        ([], 1, False, 0),
    ],
)
def test_workers_are_counted_node_by_node(nodes, cpus, gpu, count):
    assert cluster.slots(nodes, cpus, gpu) == count


@pytest.mark.parametrize(
    ("nodes", "workers", "gpu", "cpus"),
    [
        ([C16, C16], 1, False, 16),
        ([C16, C16], 2, False, 16),
        ([C16, C16], 3, False, 8),
        ([C16, C16], 32, False, 1),
        ([C16, {"CPU": 4.0}], 3, False, 5),
        ([{"CPU": 2.0}], 1, False, 2),
        ([HEAD, G2], 2, True, 8),
        ([G2, G2], 3, True, 8),
        ([{"CPU": 7.0, "GPU": 1.0}, C16], 1, True, 7),
    ],
)
def test_by_default_a_worker_has_all_processors_that_leave_room_for_the_others(nodes, workers, gpu, cpus):
    assert cluster.fitting(nodes, workers, None, gpu) == cpus
    assert cluster.slots(nodes, cpus, gpu) >= workers > cluster.slots(nodes, cpus + 1, gpu)


@pytest.mark.parametrize(
    ("live", "groups", "workers", "counted"),
    [
        ([C16], [], 4, [C16]),
        ([HEAD], [(C16, 3)], 4, [C16, C16, C16, HEAD]),
        ([HEAD, C16], [(C16, 3)], 4, [C16, C16, C16, HEAD]),
        ([HEAD], [(G2, -1), (C16, 0)], 2, [G2, G2, HEAD]),
        ([HEAD], [(C16, 10**9)], 2, [C16, C16, HEAD]),
    ],
)
def test_nodes_that_an_autoscaler_may_add_count_and_none_counts_twice(live, groups, workers, counted):
    assert cluster.nodes(live, groups, workers) == counted


def placement(monkeypatch: pytest.MonkeyPatch, live: list[dict[str, float]], groups: Any = None, **config: Any) -> Any:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": node} for node in live] + [DEAD])
    monkeypatch.setattr(state, "get_cluster_config", lambda: groups and SimpleNamespace(node_group_configs=groups))
    cpus = config.pop("cpus", None)
    return cluster.placement({"workers": 1, "device": "auto", "parallel": {"cpus_per_worker": cpus}, **config})


DEAD = {"Alive": False, "Resources": {"CPU": 99.0, "GPU": 9.0}}


def test_one_worker_asks_for_no_more_than_a_node_has(monkeypatch):
    assert placement(monkeypatch, [C16, C16]) == (False, {"CPU": 16})
    assert placement(monkeypatch, [C16, C16], workers=4, cpus=2) == (False, {"CPU": 2})
    assert placement(monkeypatch, [C16, G2]) == (True, {"CPU": 16, "GPU": 1})
    assert placement(monkeypatch, [C16, G2], device="cpu", workers=4) == (False, {"CPU": 8})
    group = SimpleNamespace(resources={"CPU": 8, "GPU": 4}, max_count=-1)
    assert placement(monkeypatch, [HEAD], [group], workers=16) == (True, {"CPU": 8, "GPU": 1})


@pytest.mark.parametrize(
    ("nodes", "config", "message"),
    [
        ([C16], {"device": "cuda"}, "device=cuda: this cluster has no GPU"),
        ([C16, C16], {"workers": 33}, r"workers=33 is more than this cluster can ever hold \(32 of one CPU\).*=32 or"),
        ([G2, C16], {"workers": 3}, r"workers=3 .*\(2 of one GPU\); use workers=2, device=cpu or a larger cluster"),
        ([HEAD], {}, "workers=1 is more"),
        ([C16, C16], {"cpus": 32}, r"cpus_per_worker=32: .* hold 0 such workers, not workers=1; .*worker=16 or less"),
        ([C16, C16], {"workers": 4, "cpus": 9}, r"cpus_per_worker=9: .* hold 2 .*workers=4; .*worker=8 or less"),
    ],
)
def test_what_can_never_be_placed_is_refused_with_the_remedy(monkeypatch, nodes, config, message):
    with pytest.raises(Misuse, match=message):
        placement(monkeypatch, nodes, **config)
