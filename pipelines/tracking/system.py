"""What the machine is doing, under the names MLflow's own monitor gives."""

import contextlib
import os
from collections.abc import Iterator

import psutil


class Sampler:
    """``sampler()`` gives ``{"system/cpu_utilization_percentage": …}`` of this machine, with every NVIDIA GPU it sees.

    Units are in the names; network volumes count from the first sample.
    """

    def __init__(self) -> None:
        self._gpus = _gpus()
        self._network = psutil.net_io_counters()
        psutil.cpu_percent()  # the first call only starts its clock and answers 0

    def __call__(self) -> dict[str, float]:
        samples = {**dict(self._machine()), **dict(self._cards())}
        return {f"system/{name}": float(value) for name, value in samples.items()}

    def _machine(self) -> Iterator[tuple[str, float]]:
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(os.sep)
        yield "cpu_utilization_percentage", psutil.cpu_percent()
        yield "system_memory_usage_megabytes", memory.used / 1e6
        yield "system_memory_usage_percentage", 100 * memory.used / memory.total
        yield "disk_usage_percentage", disk.percent
        yield "disk_usage_megabytes", disk.used / 1e6
        yield "disk_available_megabytes", disk.free / 1e6
        if self._network and (network := psutil.net_io_counters()):
            yield "network_receive_megabytes", (network.bytes_recv - self._network.bytes_recv) / 1e6
            yield "network_transmit_megabytes", (network.bytes_sent - self._network.bytes_sent) / 1e6

    def _cards(self) -> Iterator[tuple[str, float]]:
        if not self._gpus:
            return
        import pynvml

        for index, card in enumerate(self._gpus):
            with contextlib.suppress(pynvml.NVMLError):  # a virtual or MIG card answers only some questions
                memory = pynvml.nvmlDeviceGetMemoryInfo(card)
                yield f"gpu_{index}_memory_usage_percentage", 100 * int(memory.used) / int(memory.total)
                yield f"gpu_{index}_memory_usage_megabytes", int(memory.used) / 1e6
            with contextlib.suppress(pynvml.NVMLError):
                yield f"gpu_{index}_utilization_percentage", pynvml.nvmlDeviceGetUtilizationRates(card).gpu
            with contextlib.suppress(pynvml.NVMLError):
                watts = pynvml.nvmlDeviceGetPowerUsage(card) / 1000
                yield f"gpu_{index}_power_usage_watts", watts
                limit = pynvml.nvmlDeviceGetEnforcedPowerLimit(card) / 1000
                yield f"gpu_{index}_power_usage_percentage", 100 * watts / limit


def _gpus() -> list[object]:
    try:
        import pynvml

        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except Exception:  # no library, no driver or no card are all the same here: no GPU to watch
        return []
