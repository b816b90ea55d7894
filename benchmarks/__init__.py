"""Our roads against what people would use instead, in one run, with the machine's limit beside them.

__main__.py      python -m benchmarks: runs the roads, prints the table, writes docs/benchmarks.md
comparing.py     two sides of a road, A B A B, medians; equal output first
machine.py       what the machine is and can do
sizes.py         the public sizes, and tiny ones; random weights and pictures of them
reading.py, encoding.py, captioning.py, folders.py, training.py, memory.py   the roads
curves.py        rate and memory against batch size, beams, length, images, threads: tables of its own
gpu.py           absolute rates on a GPU against its limits: gpu_roads.py the roads, gpu_work.py their work
metrics.py, full_size.py   programs of their own: scoring; the full size once, from training to captions
"""
