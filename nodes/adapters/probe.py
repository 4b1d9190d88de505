"""What this machine is and how it fares, read with psutil (and nvidia-smi where there is one).

Every number is finite and every key stands only where the machine tells the value. Rates are
averages since the previous sample. Call from a thread: nvidia-smi may take a while.
"""

from __future__ import annotations

import csv
import os
import platform
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

import psutil

FSYNCS = 100  # newest measurements
WORST_MS = 10_000.0
GPU_EVERY_S = 15.0
GPU_TIMEOUT_S = 5.0
_GPU_FIELDS = {
    "index": int,
    "name": str,
    "memory.total": float,  # MiB
    "memory.used": float,  # MiB
    "utilization.gpu": float,  # percent
    "temperature.gpu": float,  # Celsius
}
_MIB = 1024 * 1024


class HealthProbe:
    """Samples this machine for `system_health` items; safe to call from several threads."""

    def __init__(self, node: str, data_dir: Path) -> None:
        self._node = node
        self._data_dir = data_dir
        self._lock = threading.Lock()
        self._gpus = GpuReader()
        self._cores = _core_seconds()
        self._counters = _counters()
        self._sampled_at = time.monotonic()

    def sample(self) -> dict[str, Any]:
        """One reading; bytes, percent (0..100), Celsius, and bytes per second."""
        with self._lock:
            data: dict[str, Any] = {
                "node": self._node,
                **self._cpu(),
                "processes": len(psutil.pids()),
                "uptime_s": round(time.time() - psutil.boot_time(), 1),
                **_where_known(_loads),
                **_where_known(_memory),
                **_where_known(lambda: _disk(self._data_dir)),
                **self._rates(),
                **_where_known(_temperature),
                **_gpu_health(self._gpus.read()),
            }
        return data

    def _cpu(self) -> dict[str, Any]:
        # Not psutil.cpu_percent: it compares with the last call of the *same thread*, and a pool's
        # threads take turns.
        before, self._cores = self._cores, _core_seconds()
        pairs = list(zip(before, self._cores, strict=False))  # cores can be taken offline
        busy = [max(0.0, now[0] - then[0]) for then, now in pairs]
        total = [max(0.0, now[1] - then[1]) for then, now in pairs]
        return {
            "cpu_percent": _percent(sum(busy), sum(total)),
            "cpu_percent_per_core": [_percent(*core) for core in zip(busy, total, strict=True)],
        }

    def _rates(self) -> dict[str, float]:
        counters, now = _counters(), time.monotonic()
        elapsed_s = max(now - self._sampled_at, 1e-3)
        before = self._counters
        self._counters, self._sampled_at = counters, now
        return {
            f"{key}_per_s": round((value - before[key]) / elapsed_s, 1)
            for key, value in counters.items()
            if value >= before.get(key, value + 1)  # counters wrap, and devices go away
        }


class GpuReader:
    """The machine's NVIDIA GPUs, asked for at most every 15 s."""

    def __init__(self) -> None:
        self._command = shutil.which("nvidia-smi")
        self._known: list[dict[str, Any]] = []
        self._read_at = float("-inf")

    def read(self) -> list[dict[str, Any]]:
        """One object a GPU, with the values it tells; [] where there is none."""
        if self._command and time.monotonic() - self._read_at >= GPU_EVERY_S:
            self._known = self._ask(self._command)
            self._read_at = time.monotonic()
        return self._known

    @staticmethod
    def _ask(command: str) -> list[dict[str, Any]]:
        query = f"--query-gpu={','.join(_GPU_FIELDS)}"
        try:
            done = subprocess.run(
                [command, query, "--format=csv,noheader,nounits"],
                capture_output=True,
                text=True,
                timeout=GPU_TIMEOUT_S,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return []
        return parse_gpus(done.stdout)


def parse_gpus(text: str) -> list[dict[str, Any]]:
    """GPUs from nvidia-smi's CSV; values it does not know ("[N/A]") are left out."""
    gpus = []
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        gpu: dict[str, Any] = {}
        for (field, convert), value in zip(_GPU_FIELDS.items(), row, strict=False):
            with suppress(ValueError):
                gpu[field] = convert(value)
        if "name" in gpu:
            gpus.append(gpu)
    return gpus


class CapabilityProbe:
    """Measures what this machine offers to the cluster; call it from one thread at a time."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._gpus = GpuReader()
        self._fsyncs_ms: deque[float] = deque(maxlen=FSYNCS)

    def measure(self) -> dict[str, Any]:
        """Capabilities as `nodes.capabilities` weighs them; writes and syncs 4 KiB."""
        self._fsyncs_ms.append(self._fsync_ms())
        slow = sorted(self._fsyncs_ms)[int(0.99 * len(self._fsyncs_ms))]
        return {
            "cores": psutil.cpu_count() or 1,
            "memory_bytes": psutil.virtual_memory().total,
            "disk_free_bytes": psutil.disk_usage(str(self._data_dir)).free,
            "fsync_p99_ms": round(slow, 2),
            "gpus": [
                {"name": gpu["name"], "memory_bytes": int(gpu.get("memory.total", 0) * _MIB)}
                for gpu in self._gpus.read()
            ],
            "python": platform.python_version(),
            "platform": platform.platform(),
            **{key: value for key, value in _where_known(_loads).items() if key == "load1"},
        }

    def _fsync_ms(self) -> float:
        """Milliseconds until the disk has 4 KiB; a full disk is a slow one."""
        path = self._data_dir / "fsync-probe"
        started = time.perf_counter()
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.pwrite(file, bytes(4096), 0)
                os.fsync(file)
            finally:
                os.close(file)
        except OSError:
            return WORST_MS
        return min(WORST_MS, 1000 * (time.perf_counter() - started))


def _loads() -> dict[str, float]:
    loads = psutil.getloadavg()
    return dict(zip(("load1", "load5", "load15"), (round(load, 3) for load in loads), strict=True))


def _memory() -> dict[str, float]:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return {
        "memory_total": memory.total,
        "memory_used": memory.total - memory.available,
        "memory_percent": memory.percent,
        "swap_total": swap.total,
        "swap_used": swap.used,
        "swap_percent": swap.percent,
    }


def _disk(data_dir: Path) -> dict[str, float]:
    usage = psutil.disk_usage(str(data_dir))
    return {"disk_total": usage.total, "disk_free": usage.free, "disk_percent": usage.percent}


def _temperature() -> dict[str, float]:
    chips = psutil.sensors_temperatures().values()
    readings = [reading.current for chip in chips for reading in chip if isfinite(reading.current)]
    return {"temperature_max": max(readings)} if readings else {}


def _core_seconds() -> list[tuple[float, float]]:
    """Busy and total seconds of each core since boot; guest time is part of user time."""
    cores = []
    for times in psutil.cpu_times(percpu=True):
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        cores.append((total - times.idle - getattr(times, "iowait", 0.0), total))
    return cores


def _percent(part: float, whole: float) -> float:
    return round(min(100.0, 100 * part / whole), 1) if whole else 0.0


def _counters() -> dict[str, float]:
    """Bytes since boot, of all disks and all interfaces."""
    return _where_known(_disk_bytes) | _where_known(_network_bytes)


def _disk_bytes() -> dict[str, float]:
    disk = psutil.disk_io_counters()
    return (
        {"disk_read_bytes": disk.read_bytes, "disk_write_bytes": disk.write_bytes} if disk else {}
    )


def _network_bytes() -> dict[str, float]:
    net = psutil.net_io_counters()
    return {"net_rx_bytes": net.bytes_recv, "net_tx_bytes": net.bytes_sent} if net else {}


def _where_known(read: Callable[[], dict[str, float]]) -> dict[str, float]:
    """A reading, or nothing where this system or container does not give it."""
    try:
        return read()
    except (OSError, RuntimeError, AttributeError):
        return {}


def _gpu_health(gpus: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    names = {
        "index": "index",
        "name": "name",
        "utilization.gpu": "percent",
        "temperature.gpu": "temperature",
    }
    rows = []
    for gpu in gpus:
        row = {name: gpu[field] for field, name in names.items() if field in gpu}
        for field in ("total", "used"):
            if f"memory.{field}" in gpu:
                row[f"memory_{field}"] = int(gpu[f"memory.{field}"] * _MIB)
        rows.append(row)
    return {"gpus": rows} if rows else {}
