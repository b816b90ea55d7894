"""Our roads against what people would use instead, in one run, with the machine's limit beside them.

__main__.py      python -m benchmarks: runs the roads, prints the table, writes docs/benchmarks.md
comparing.py     the sides of a road, A B A B, medians; equal output first
page.py          what was measured -> JSON -> the page
machine.py       what the machine is and can do
sizes.py         the public sizes, and tiny ones; random weights and pictures of them
reading.py, encoding.py, captioning.py, folders.py, training.py, metrics.py   the roads
memory.py        peak memory, in place of a road
curves.py, curves_page.py   rate and memory against batch size, beams, length, images, threads, loader threads
gpu.py           absolute rates on a GPU against its limits: gpu_roads.py the roads, gpu_work.py their work
int8.py          how far int8 is from fp32, in CIDEr-D
full_size.py, nano.py, search.py   programs of their own: the full size once, from training to captions; the
                 models in the box; search
"""

from pathlib import Path

FLICKR8K = Path("../shared/flickr8k")  # as Makefile and tests look for it
