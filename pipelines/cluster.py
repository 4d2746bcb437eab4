"""Ray: joining a cluster or starting one on this machine, and what it can hold."""

import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipelines.errors import Misuse

# Node autoscaling with a large image takes minutes; Ray Train's own limit is one.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "1800",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def connect(debug: bool = False) -> bool:
    """Join the cluster that ``RAY_ADDRESS`` or a running local Ray names, else start one here; True if it was started.

    Errors: ``Misuse`` for an address where no cluster answers.
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
                include_dashboard=None if address else False,
                log_to_driver=debug,
                logging_level=level,
                configure_logging=debug,
            )
    except (ConnectionError, RuntimeError) as error:
        raise Misuse(
            f"RAY_ADDRESS={address or 'not set'}: no Ray cluster answers ({str(error).splitlines()[0]}); "
            "unset it to start Ray on this machine, or run `ray status` to see what is there"
        ) from error
    return address is None


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


def quiet() -> None:
    """What Ray must find in its environment, here and in its workers."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


def placement(config: Mapping[str, Any]) -> tuple[bool, dict[str, float]]:
    """``(use_gpu, resources of one worker)``, refused if the cluster can never hold all workers."""
    import ray
    from ray._private.state import state

    limit = state.get_max_resources_from_cluster_config() or {}
    held = ray.cluster_resources()
    most = {kind: max(held.get(kind, 0), limit.get(kind, 0)) for kind in ("CPU", "GPU")}

    workers, device = config["workers"], config["device"]
    use_gpu = device == "cuda" or (device == "auto" and most["GPU"] >= 1)
    if device == "cuda" and most["GPU"] < 1:
        raise Misuse("device=cuda: this cluster has no GPU; use device=cpu, or point RAY_ADDRESS at one that has")
    kind = "GPU" if use_gpu else "CPU"
    if workers > most[kind]:
        raise Misuse(
            f"workers={workers} is more than this cluster can ever hold ({most[kind]:g} {kind}); "
            f"use workers={max(1, int(most[kind]))} or a larger cluster"
        )
    cpus = config["parallel"]["cpus_per_worker"] or max(1, int(most["CPU"] // workers))
    if not use_gpu and cpus * workers > most["CPU"]:
        raise Misuse(
            f"parallel.cpus_per_worker={cpus} x workers={workers} is more than this cluster's {most['CPU']:g} CPU"
        )
    return use_gpu, {"CPU": cpus, **({"GPU": 1} if use_gpu else {})}
