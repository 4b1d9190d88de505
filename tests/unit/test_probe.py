"""The probe reads this very machine; GPUs come from a stand-in for nvidia-smi."""

from __future__ import annotations

import json
import time
from math import isfinite
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest

from nodes.adapters.probe import CapabilityProbe, GpuReader, HealthProbe

SMI = """#!/bin/sh
echo '0, NVIDIA H200, 143771, 2048, 37, 41'
echo '1, "Tesla T4, rev 2", 15360, 0, [N/A], [Unknown Error]'
exit %d
"""


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [n for inner in value.values() for n in numbers(inner)]
    if isinstance(value, list):
        return [n for inner in value for n in numbers(inner)]
    return [] if isinstance(value, str) else [value]


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    path.write_text(SMI % 0)
    path.chmod(0o755)
    return path


def test_a_sample_is_finite_quick_and_agrees_with_the_machine(tmp_path: Path) -> None:
    probe = HealthProbe("n1", tmp_path)
    started = time.perf_counter()
    data = probe.sample()
    assert time.perf_counter() - started < 1
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert all(isfinite(number) and number >= 0 for number in numbers(data))
    assert data["node"] == "n1"
    assert data["memory_total"] == psutil.virtual_memory().total
    assert len(data["cpu_percent_per_core"]) == psutil.cpu_count()
    assert {"load1", "swap_used", "disk_free", "processes", "net_rx_bytes_per_s"} <= set(data)


def test_cpu_load_shows_whichever_thread_asks(tmp_path: Path) -> None:
    probe = HealthProbe("n1", tmp_path)
    seen: list[dict[str, Any]] = []
    deadline = time.process_time() + 0.3
    while time.process_time() < deadline:
        pass  # 0.3 s of one core's work
    for _ in range(2):
        thread = Thread(target=lambda: seen.append(probe.sample()))
        thread.start()
        thread.join()
    assert sum(seen[0]["cpu_percent_per_core"]) > 50
    assert seen[0]["cpu_percent"] > 0


def test_network_rates_come_from_the_counters(tmp_path: Path) -> None:
    probe = HealthProbe("n1", tmp_path)
    probe._counters = dict.fromkeys(probe._counters, 0)
    probe._sampled_at -= 1_000
    data = probe.sample()
    received = psutil.net_io_counters().bytes_recv
    assert data["net_rx_bytes_per_s"] == pytest.approx(received / 1_000, rel=0.05, abs=1)


def test_gpus_are_reported_with_what_is_known(smi: Path, tmp_path: Path) -> None:
    first, second = HealthProbe("n1", tmp_path).sample()["gpus"]
    assert first == {
        "index": 0,
        "name": "NVIDIA H200",
        "percent": 37.0,
        "temperature": 41.0,
        "memory_total": 143771 * 2**20,
        "memory_used": 2048 * 2**20,
    }
    assert second["name"] == "Tesla T4, rev 2"
    assert "percent" not in second
    assert "temperature" not in second
    gpu = CapabilityProbe(tmp_path).measure()["gpus"][0]
    assert gpu == {"name": "NVIDIA H200", "memory_bytes": 143771 * 2**20}


def test_gpus_are_not_asked_at_every_sample(smi: Path) -> None:
    reader = GpuReader()
    assert len(reader.read()) == 2
    smi.unlink()
    assert len(reader.read()) == 2


def test_a_broken_nvidia_smi_means_no_gpu(smi: Path, tmp_path: Path) -> None:
    smi.write_text(SMI % 9)
    assert "gpus" not in HealthProbe("n1", tmp_path).sample()


def test_capabilities(tmp_path: Path) -> None:
    found = CapabilityProbe(tmp_path).measure()
    assert found["cores"] == psutil.cpu_count()
    assert found["memory_bytes"] > 0
    assert found["disk_free_bytes"] > 0
    assert found["python"].startswith("3.")
