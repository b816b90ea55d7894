"""What every test stands on: no network, one thread, and a loud word about what this machine could not test.

A test marked `flickr8k`, `java` or `chromium` is skipped where that is absent; the summary counts and
names such tests. A socket that leaves this machine fails the test that opened it. Threads are one per process
so that a run repeats bit for bit and `pytest -n 2` fits on two cores; a test of threading sets its own.
"""

import ipaddress
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Read by libraries when they are imported, which no test has done yet; subprocesses of tests inherit them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"  # a proxy would swallow connections to 127.0.0.1

FLICKR8K_DIR = Path(
    os.environ.get("PIXTELL_FLICKR8K") or Path(__file__).resolve().parents[2] / "shared" / "flickr8k"
)

# marker -> (is it here?, the sentence to say where it is not)
NEEDS: dict[str, tuple[Callable[[], bool], str]] = {
    "flickr8k": (
        FLICKR8K_DIR.is_dir,
        f"{FLICKR8K_DIR} is absent: set PIXTELL_FLICKR8K to the folder of the data set",
    ),
    "java": (
        lambda: shutil.which("java") is not None,
        "there is no java: install a Java runtime",
    ),
    "chromium": (lambda: shutil.which("chromium") is not None, "there is no chromium: install the browser"),
}


def skip_reason(marker: str) -> str:
    return f"[{marker}] {NEEDS[marker][1]}"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip before any fixture is built where a marked need is absent."""
    for marker, (is_here, _) in NEEDS.items():
        if item.get_closest_marker(marker) is not None and not is_here():
            pytest.skip(skip_reason(marker))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests go first, so that no process starts one when the others are done."""
    long_files = {item.path for item in items if item.get_closest_marker("long") is not None}
    items.sort(key=lambda item: item.path not in long_files)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count and name, before the closing line, the tests that were skipped for want of something here."""
    skipped = terminalreporter.stats.get("skipped", [])
    absent = {
        marker: [report.nodeid for report in skipped if f"[{marker}]" in str(report.longrepr)]
        for marker in NEEDS
    }
    if not any(absent.values()):
        return
    terminalreporter.write_sep("=", "NOT TESTED ON THIS MACHINE", yellow=True, bold=True)
    for marker, names in absent.items():
        if names:
            terminalreporter.write_line(f"{len(names)} skipped, {NEEDS[marker][1]}:", yellow=True, bold=True)
            terminalreporter.write_line("".join(f"  {name}\n" for name in names).rstrip("\n"))


@pytest.fixture(scope="session")
def flickr8k_dir() -> Path:
    """The folder of the real data set, original layout; skips where it is absent."""
    if not NEEDS["flickr8k"][0]():
        pytest.skip(skip_reason("flickr8k"))
    return FLICKR8K_DIR


def stays_here(host: object) -> bool:
    """Whether `host` names this machine: loopback by name or number, or every interface ("" and None)."""
    if isinstance(host, bytes):
        host = host.decode()
    if not isinstance(host, str) or host in {"", "localhost", socket.gethostname()}:
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


@pytest.fixture(scope="session", autouse=True)
def network_attempts() -> Iterator[list[str]]:
    """Guards every socket of the session, modules' fixtures included; collects the hosts that were tried."""
    attempts: list[str] = []

    def refuse(host: object) -> None:
        attempts.append(str(host))
        pytest.fail(f"this test opens a connection to {host}: tests have no network, use 127.0.0.1 or a fake")

    def guard_method(method: Callable[..., object]) -> Callable[..., object]:
        def guarded(self: socket.socket, address: object) -> object:
            if isinstance(address, tuple) and not stays_here(
                address[0]
            ):  # a unix socket's address is no tuple
                refuse(address[0])
            return method(self, address)

        return guarded

    look_up = socket.getaddrinfo

    def guarded_look_up(host: object, *args: object, **kwargs: object) -> object:
        if not stays_here(host):
            refuse(host)
        return look_up(host, *args, **kwargs)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guard_method(socket.socket.connect))
        patch.setattr(socket.socket, "connect_ex", guard_method(socket.socket.connect_ex))
        patch.setattr(socket, "getaddrinfo", guarded_look_up)
        yield attempts


@pytest.fixture(autouse=True)
def no_network(network_attempts: list[str]) -> Iterator[None]:
    """Fails a test that tried to leave this machine, even where code or a thread swallowed the refusal."""
    network_attempts.clear()
    yield
    if network_attempts:
        pytest.fail(f"this test tried to reach {', '.join(network_attempts)}: tests have no network")


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `encoder/` and checkpoints of both families over it, `clipcap/` and `lstm/`: real files
    with random weights, made large so that captions differ from picture to picture. Not to be changed."""
    import torch

    from pixtell.checkpoints import CheckpointConfig, save_checkpoint
    from pixtell.encoders import EncoderSpec
    from pixtell.encoders.nano import NanoEncoder, NanoEncoderConfig, save_nano_encoder
    from pixtell.files import atomic_directory
    from pixtell.models import build_model
    from pixtell.tokenizers import WordTokenizer

    folder = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng():
        torch.manual_seed(2)
        encoder = NanoEncoder(config=NanoEncoderConfig(width=4, blocks=(1, 1, 1, 1), image_size=64))
        with atomic_directory(folder / "encoder") as directory:
            save_nano_encoder(encoder, directory)
        words = "<eos> <unk> a the dog cat man woman ball red blue runs sits on in under grass water and of"
        tokenizer = WordTokenizer(words.split())
        gpt2 = {
            "vocab_size": tokenizer.vocab_size,
            "width": 16,
            "num_layers": 2,
            "num_heads": 2,
            "max_positions": 48,
        }
        families = {
            "clipcap": {"feature_dim": 32, "mapping": "patch", "num_patches": 4, "gpt2": gpt2},
            "lstm": {"feature_dim": 32, "vocab_size": tokenizer.vocab_size, "width": 16},
        }
        for family, sizes in families.items():
            torch.manual_seed(2)
            model = build_model(family, sizes)
            for name, parameter in model.named_parameters():
                parameter.data.mul_(240 if name == "image.weight" else 8)
            spec = EncoderSpec(kind="nano", output="patches", path=str(folder / "encoder"))
            config = CheckpointConfig(family, sizes, spec, tokenizer.kind, {"max_new_tokens": 8})
            with atomic_directory(folder / family) as directory:
                save_checkpoint(directory, config=config, model=model, tokenizer=tokenizer)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six pictures of different sizes and kinds, of a few large squares of colour each. Not to be changed."""
    import numpy as np
    from PIL import Image

    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    paths = [folder / f"{index}{'.png' if index % 2 else '.jpg'}" for index in range(6)]
    for index, path in enumerate(paths):
        colours = random.integers(0, 256, size=(3, 3, 3), dtype=np.uint8)
        size = (90 + 20 * index, 120)
        Image.fromarray(colours).resize(size, Image.Resampling.NEAREST).save(path)
    return paths


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a whole small CLIP with random weights and a tokenizer that spells letter by letter.
    Not to be changed."""
    import torch
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPConfig, CLIPModel

    from pixtell.files import write_json

    directory = tmp_path_factory.mktemp("clip") / "tiny-clip"
    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    sizes = {"intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
    positions = {"max_position_embeddings": 24, "eos_token_id": len(pieces) - 1}
    config = CLIPConfig(
        vision_config={"hidden_size": 32, "image_size": 32, "patch_size": 16, **sizes},
        text_config={"hidden_size": 16, "vocab_size": len(pieces), **positions, **sizes},
        projection_dim=24,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIPModel(config).eval()
        for parameter in model.parameters():  # their initial weights make nearly equal embeddings
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(directory)
    write_json(directory / "vocab.json", {piece: index for index, piece in enumerate(pieces)})
    (directory / "merges.txt").write_text("#version: 0.2\n")
    return directory


@pytest.fixture(scope="session")
def tiny_towers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a nano encoder with a text tower, random weights, embeddings of 8. Not to be
    changed."""
    import torch

    from pixtell.encoders.nano import NanoEncoder, NanoEncoderConfig
    from pixtell.encoders.nano_text import NanoTextConfig, NanoTowers
    from pixtell.files import atomic_directory
    from pixtell.tokenizers import WordTokenizer

    words = "<eos> <unk> a the dog cat man woman ball red blue runs"
    with torch.random.fork_rng():
        torch.manual_seed(3)
        encoder = NanoEncoder(config=NanoEncoderConfig(width=4, blocks=(1, 1, 1, 1), image_size=64))
        towers = NanoTowers(
            encoder=encoder,
            config=NanoTextConfig(width=16, num_layers=2, head_dim=8, embedding_dim=8, max_length=10),
            tokenizer=WordTokenizer(words.split()),
        )
        for name, parameter in towers.named_parameters():  # large, so that embeddings differ
            if parameter.ndim > 1 and not name.startswith("image.encoder"):
                torch.nn.init.normal_(parameter, std=0.5)
    with atomic_directory(tmp_path_factory.mktemp("towers") / "tiny-towers") as directory:
        towers.eval().save(directory)
    return directory.parent / "tiny-towers"


@pytest.fixture(scope="session")
def save_small() -> Callable[..., Any]:
    """save_small(model_type, directory) -> a small model of transformers of this type, for images of 32
    pixels a side, which it saves to `directory`; with head="ForImageClassification" one with 7 classes."""

    def save(model_type: str, directory: Path, head: str = "") -> Any:
        import torch
        import transformers

        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
        settings: dict[str, Any] = {"image_size": 32, "patch_size": 8, **sizes}
        if model_type == "resnet":
            settings = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
        elif model_type == "convnext":
            settings = {"image_size": 64, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
        elif model_type == "swin":
            windows = {"depths": [1, 1], "num_heads": [1, 1], "window_size": 2}
            settings = {"image_size": 64, "embed_dim": 8, **windows}
        elif model_type in ("siglip", "clip"):
            settings = {"vision_config": settings, "text_config": {"vocab_size": 50, **sizes}}
        elif model_type == "bert":
            settings = {"vocab_size": 50, **sizes}
        if head:
            settings["num_labels"] = 7
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = getattr(transformers, f"AutoModel{head}").from_config(
                transformers.AutoConfig.for_model(model_type, **settings)
            )
            for parameter in model.parameters():  # their initial weights make nearly equal features
                if parameter.ndim > 1:
                    torch.nn.init.normal_(parameter, std=0.2)
        model.eval().save_pretrained(directory)
        return model

    return save
