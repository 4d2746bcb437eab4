"""Ray: joining a cluster or starting one on this machine, and what it can hold."""

import logging
import math
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pipelines.errors import Misuse, first_line

Node = Mapping[str, float]
"""The resources of one node, by Ray's names."""

# Node autoscaling with a large image takes minutes; Ray Train's own limit is one.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "1800",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
# A Ray started here gets no notice of pre-emption, and the actor that waits for one takes a second to start; its few
# workers may be asked how they are more often than every 2 s, which is also how soon their start and end are seen.
LOCAL = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5"}


def connect(debug: bool = False, dashboard: bool = False) -> bool:
    """Join the cluster that ``RAY_ADDRESS`` or a running local Ray names, else start one here; True if it was started.

    ``dashboard``: of a Ray started here.  Without one Ray Train does not learn that a run's controller was killed, and
    its workers' processors are never free again.  Errors: ``Misuse`` for an address where no cluster answers.
    """
    quiet()
    import ray

    if ray.is_initialized():
        return False
    address = os.environ.get("RAY_ADDRESS")
    level = logging.INFO if debug else logging.ERROR
    logging.getLogger("ray").setLevel(level)
    try:
        with own_signals():
            ray.init(
                address=address,
                include_dashboard=None if address else dashboard,
                log_to_driver=debug,
                logging_level=level,
                configure_logging=debug,
            )
    except (ConnectionError, RuntimeError) as error:
        raise Misuse(
            f"RAY_ADDRESS={address or 'not set'}: no Ray cluster answers ({first_line(error)}); "
            "unset it to start Ray on this machine, or run `ray status` to see what is there"
        ) from error
    started = bool(ray._private.worker._global_node.is_head())  # type: ignore[attr-defined]  # else `ray start` had
    if started:
        quiet(LOCAL)
    return started


@contextmanager
def own_signals() -> Iterator[None]:
    """Put back the handlers of SIGINT and SIGTERM, which Ray replaces by ones that exit with 0 and 1."""
    ours = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in ours.items():
                signal.signal(number, handler)


def quiet(settings: Mapping[str, str] = _QUIET) -> None:
    """What Ray must find in its environment, here and in its workers."""
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def local() -> dict[str, str]:
    """What ``connect`` left in the environment for a Ray it had started: for processes that train themselves."""
    return {name: os.environ[name] for name in LOCAL if name in os.environ}


def size() -> int:
    """How many nodes are alive."""
    import ray

    return sum(bool(node["Alive"]) for node in ray.nodes())


def placement(config: Mapping[str, Any]) -> tuple[bool, dict[str, float]]:
    """``(use_gpu, resources of one worker)``, refused if the cluster can never hold all workers."""
    import ray
    from ray._private.state import state

    workers, device = config["workers"], config["device"]
    groups = getattr(state.get_cluster_config(), "node_group_configs", ())
    live = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    held = nodes(live, [(dict(group.resources), group.max_count) for group in groups], workers)
    gpus = any(node.get("GPU", 0) >= 1 for node in held)
    if device == "cuda" and not gpus:
        raise Misuse("device=cuda: this cluster has no GPU; use device=cpu, or point RAY_ADDRESS at one that has")
    use_gpu = device == "cuda" or (device == "auto" and gpus)
    cpus = fitting(held, workers, config["parallel"]["cpus_per_worker"], use_gpu)
    return use_gpu, {"CPU": cpus, **({"GPU": 1} if use_gpu else {})}


def nodes(live: Sequence[Node], groups: Sequence[tuple[Node, int]], workers: int) -> list[Node]:
    """The nodes that can hold ``workers``: those alive, and those an autoscaler may add.

    ``groups``: its ``(resources of a node, most nodes)``, -1 for no limit; a live node of its shape is one of it.
    """
    shapes = [_shape(resources) for resources, _ in groups]
    # A worker needs one node at most, so that no limit is a limit of `workers`.
    grown = [node for node, most in groups for _ in range(workers if most < 0 else min(most, workers))]
    return grown + [node for node in live if _shape(node) not in shapes]


def slots(nodes: Iterable[Node], cpus: float, gpu: bool) -> int:
    """How many workers of ``cpus`` processors, and a GPU each if ``gpu``, the nodes hold; none spans two nodes."""
    held = ((node.get("CPU", 0) // cpus, node.get("GPU", 0) if gpu else math.inf) for node in nodes)
    return sum(int(min(pair)) for pair in held)


def fitting(held: Sequence[Node], workers: int, cpus: float | None, gpu: bool) -> float:
    """Processors of one worker: ``cpus``, or else the largest whole number for which all ``workers`` have a place.

    Errors: ``Misuse`` if there is no place for them.
    """
    most = slots(held, min(cpus or 1, 1), gpu)
    if workers > most:
        kind, remedy = ("GPU", ", device=cpu") if gpu else ("CPU", "")
        raise Misuse(
            f"workers={workers} is more than this cluster can ever hold ({most} of one {kind}); "
            f"use workers={max(1, most)}{remedy} or a larger cluster"
        )
    largest = int(max(node.get("CPU", 0) for node in held))
    fits = next((n for n in range(largest, 0, -1) if slots(held, n, gpu) >= workers), cpus or 1)
    if cpus and slots(held, cpus, gpu) < workers:
        raise Misuse(
            f"parallel.cpus_per_worker={cpus:g}: the nodes of this cluster hold {slots(held, cpus, gpu)} such workers, "
            f"not workers={workers}; use parallel.cpus_per_worker={fits} or less"
        )
    return cpus or fits


def _shape(node: Node) -> tuple[float, float]:
    return node.get("CPU", 0), node.get("GPU", 0)
