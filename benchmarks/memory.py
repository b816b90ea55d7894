"""Peak memory of a process of its own that captions pictures, greedily and with beams (Linux only): no peer,
a limit."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.sizes import Models

ENGINES = {  # engine -> its name, the limit in GB
    "torch": ("torch, fp32", 2.5),
    "fp32": ("ONNX Runtime, fp32", 2.5),
    "int8": ("ONNX Runtime, int8", 1.2),
}


def lines(models: "Models") -> Iterator[str]:
    """One line an engine and a number of beams."""
    import torch

    sizes = models.sizes
    pictures = [str(path) for path in models.pictures[: 2 * sizes.batch_size]]
    for engine, (name, limit) in ENGINES.items():
        directory = models.checkpoint if engine == "torch" else models.exported(engine)
        for beam_size in (1, sizes.beam_size):
            arguments = (str(directory), str(sizes.batch_size), str(beam_size), *pictures)
            command = [sys.executable, "-m", "benchmarks.memory", str(torch.get_num_threads()), *arguments]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            peak = json.loads(done.stdout.splitlines()[-1])
            yield (
                f"Peak memory, {len(pictures)} JPEGs -> captions, CLIP ViT-B/32 and GPT-2 small, batch "
                f"{sizes.batch_size}, beam {beam_size}, {name}: {peak:.2f} GB (to stay under {limit})"
            )


def peak_gb() -> float:
    """Of this program alone: getrusage would count what its parent held when it made the process."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    [kib] = [line.split()[1] for line in status if line.startswith("VmHWM:")]
    return int(kib) * 1024 / 1e9


def main() -> None:
    """In the child: caption, then print the peak."""
    import torch

    from pixtell import Captioner

    threads, directory, batch_size, beam_size, *pictures = sys.argv[1:]
    torch.set_num_threads(int(threads))
    captioner = Captioner.from_pretrained(directory)
    captioner.caption(pictures, batch_size=int(batch_size), beam_size=int(beam_size))
    print(json.dumps(peak_gb()))


if __name__ == "__main__":
    main()
