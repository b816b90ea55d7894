"""The command `search`.

In: its flags. Out: pictures on stdout, the nearest first. What it calls does the work.
"""

import json

from pixtell import cli_options
from pixtell.errors import OptionError
from pixtell.options import check_positive
from pixtell.terminal import counter, exit_code, open_output, say


def search_folders(flags: cli_options.SearchFlags, compute: cli_options.ComputeFlags) -> int:
    """`pixtell search`."""
    from pixtell.downloads import cache_directory
    from pixtell.embedder import Embedder
    from pixtell.search import Hit, PictureIndex, check_text, find_unknown_words

    def as_text(hit: Hit) -> str:
        path = str(hit.path).replace("\\", "\\\\").replace("\t", "\\t")
        return f"{hit.score:.4f}\t{path}".replace("\n", "\\n").replace("\r", "\\r")

    def as_json(hit: Hit) -> str:
        return json.dumps({"path": str(hit.path), "score": round(hit.score, 6)})

    formats = {"text": as_text, "jsonl": as_json}
    check_positive(flags, "top")
    if flags.format not in formats:
        raise OptionError(f"--format {flags.format!r} is unknown; choose one of {', '.join(formats)}.")
    check_text(flags.text)
    embedder = Embedder.from_pretrained(
        flags.model, device=compute.device, dtype=compute.dtype, batch_size=compute.batch_size
    )
    unknown = find_unknown_words(flags.text, embedder)
    with counter("embedding", say) as on_progress:
        index = PictureIndex(
            flags.folders, embedder, cache_dir=flags.cache or cache_directory(), on_progress=on_progress
        )
    for error in index.errors:
        say(f"left out: {error}")
    if unknown:
        say(f"{flags.model} does not know: {', '.join(unknown)}; it looks for the other words.")
    with open_output(None) as stream:
        for hit in index.find(flags.text, top=flags.top):
            stream.write(formats[flags.format](hit) + "\n")
    return exit_code(len(index.errors), len(index) + len(index.errors))
