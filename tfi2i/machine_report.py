"""What this machine has for training, and what `auto` chooses on it."""

import importlib.metadata
import os
import shutil

from tfi2i import machine


def examine_machine(folder="."):
    """Describes the machine; imports TensorFlow.

    Args:
        folder: where runs are written, for the free space of its disk.

    Returns:
        List of lines "name: what is there".
    """
    from tfi2i import run_directory
    from tfi2i.training import strategies

    nearest = run_directory.nearest_folder(folder)
    lines = [f"devices: {machine.devices()}"]
    if advice := machine.cuda_advice():
        lines.append(f"GPU: {advice}")
    versions = {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy")}
    return [
        *lines,
        f"versions: {', '.join(f'{name} {version}' for name, version in versions.items())}",
        f"--precision=auto: {strategies.resolve_precision('auto')}",
        f"--xla=auto: {'on' if strategies.resolve_xla('auto') else 'off'}",
        f"--strategy=auto: {strategies.resolve_strategy('auto')}",
        f"memory: {_memory()}",
        f"disk: {shutil.disk_usage(nearest).free / 2**30:.1f} GiB free in {nearest}",
    ]


def _memory():
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    try:
        with open("/proc/meminfo") as file:
            free = next(int(line.split()[1]) / 2**20 for line in file if line.startswith("MemAvailable"))
    except OSError:  # macOS
        return f"{total:.1f} GiB"
    return f"{total:.1f} GiB, of which {free:.1f} GiB are available"
