"""Peak memory of a process that captions pictures (Linux only): no peer, a limit."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.sizes import Models

LIMITS_GB = {"fp32": 2.5, "int8": 1.2}


def lines(models: Models) -> Iterator[str]:
    """One line an engine."""
    for dtype, limit in LIMITS_GB.items():
        pictures = [str(path) for path in models.pictures[: models.sizes.batch_size]]
        command = [sys.executable, "-m", "benchmarks.memory", str(models.exported(dtype)), *pictures]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        peak = json.loads(done.stdout.splitlines()[-1])
        yield (
            f"{len(pictures)} pictures -> captions, ONNX Runtime, {dtype}: peak memory {peak:.2f} GB "
            f"(to stay under {limit})"
        )


def main() -> None:
    """In the child: caption, then print the peak in GB of this program alone."""
    from pixtell import Captioner

    directory, *pictures = sys.argv[1:]
    Captioner.from_pretrained(directory).caption(pictures, batch_size=len(pictures))
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    [kib] = [line.split()[1] for line in status if line.startswith("VmHWM:")]
    print(json.dumps(int(kib) * 1024 / 1e9))


if __name__ == "__main__":
    main()
