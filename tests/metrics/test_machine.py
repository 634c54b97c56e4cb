"""What each service tells of the machine that it runs on."""

import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace as Space

import pytest
from prometheus_client import CollectorRegistry

from rlhf_online.metrics import MachineMetrics
from rlhf_online.metrics.catalogue import Catalogue
from rlhf_online.metrics.gpu import GpuMetrics
from tests.support.small_disk import cannot_mount, small_disk


def test_each_file_system_of_the_state_folder_is_told_once(tmp_path: Path) -> None:
    state = tmp_path / "state"
    if why := cannot_mount(state / "checkpoints"):
        pytest.skip(why)
    (state / "log").mkdir()
    with small_disk(state / "checkpoints", mib=4) as disk:
        MachineMetrics(state, registry := CollectorRegistry())
        disk.fill()

        def told(name: str, folder: str) -> float | None:
            return registry.get_sample_value(name, {"folder": folder})

        assert told("rlhf_state_free_bytes", "checkpoints") == 0
        assert told("rlhf_state_size_bytes", "checkpoints") == 4 << 20
        assert told("rlhf_state_size_bytes", "state") == shutil.disk_usage(state).total
        assert told("rlhf_state_size_bytes", "log") is None, "it lies on the same disk"
        assert told("rlhf_state_size_bytes", "versions") is None, "it is not there yet"


def test_the_clock_is_read_at_each_scrape(tmp_path: Path) -> None:
    MachineMetrics(tmp_path, registry := CollectorRegistry())
    before, told, after = time.time(), registry.get_sample_value("rlhf_time_seconds"), time.time()
    assert told is not None and before <= told <= after


def test_the_process_and_the_release_are_told(tmp_path: Path) -> None:
    MachineMetrics(tmp_path, registry := CollectorRegistry())
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    resident = registry.get_sample_value("process_resident_memory_bytes")
    assert resident == pytest.approx(pages * os.sysconf("SC_PAGE_SIZE"), rel=0.2)
    [build] = [sample for family in registry.collect() if family.name == "rlhf_build_info" for sample in family.samples]
    assert build.value == 1 and build.labels["version"]


class Driver:
    """NVML with GPUs of these (used bytes, size, percent); None: one that has fallen off the bus."""

    class NVMLError(Exception):
        pass

    def __init__(self, *gpus: tuple[int, int, int] | None) -> None:
        self.gpus = gpus

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, number: int) -> tuple[int, int, int]:
        if (gpu := self.gpus[number]) is None:
            raise self.NVMLError("GPU is lost")
        return gpu

    def nvmlDeviceGetMemoryInfo(self, gpu: tuple[int, int, int]) -> Space:
        return Space(used=gpu[0], total=gpu[1])

    def nvmlDeviceGetUtilizationRates(self, gpu: tuple[int, int, int]) -> Space:
        return Space(gpu=gpu[2])


def test_each_gpu_is_told_by_its_number_and_one_that_is_lost_hides_no_other() -> None:
    registry = CollectorRegistry()
    GpuMetrics(Catalogue(registry), Driver((3 << 30, 80 << 30, 75), None, (0, 40 << 30, 0)))

    def told(name: str) -> list[float | None]:
        return [registry.get_sample_value(f"rlhf_gpu_{name}", {"gpu": gpu}) for gpu in "012"]

    assert told("memory_used_bytes") == [3 << 30, None, 0]
    assert told("memory_size_bytes") == [80 << 30, None, 40 << 30]
    assert told("utilization_ratio") == [0.75, None, 0]


def test_a_driver_that_has_gone_costs_the_scrape_nothing_but_its_gpus() -> None:
    class Gone(Driver):
        def nvmlDeviceGetCount(self) -> int:
            raise self.NVMLError("driver is not loaded")

    made = Catalogue(registry := CollectorRegistry())
    GpuMetrics(made, Gone())
    made.gauge("rlhf_time_seconds", "A clock.").set(7)
    assert [family.name for family in registry.collect()] == ["rlhf_time_seconds"]


def test_without_a_gpu_nothing_is_told_of_one() -> None:
    registry = CollectorRegistry()
    GpuMetrics(Catalogue(registry), None)
    assert [*registry.collect()] == []
