"""benchmarks/gpu.py: the work it counts is the work that is done, and it runs. No time is asserted."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def gpu_roads(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import gpu_roads

    return gpu_roads


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import gpu

    return gpu


@pytest.fixture
def bench(gpu_roads: Any) -> Any:
    found = gpu_roads.Bench(gpu_roads.TINY, torch.device("cpu"))
    # Measured by hand, so that the tests need no time: a device of one TFLOP/s.
    found.limits = gpu_roads.Limits("a device", bf16_flops=1e12, fp32_flops=5e11, bandwidth=1e11)
    return found


def done_flops(work: Any) -> int:
    """Torch's own count, attention as plain products: of each operation that ran."""
    work()  # what is made once is not counted
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        work()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("stage", ["encode", "decode", "caption"])
@pytest.mark.parametrize("beam_size", [1, 2])
def test_the_operations_of_captioning_are_those_that_run(
    gpu_roads: Any, bench: Any, stage: str, beam_size: int
) -> None:
    road = gpu_roads.Road(bench.scale.small, "fp32", stage, 3, beam_size)
    assert bench.count(road).flops == done_flops(bench.work_of(road))


def test_the_operations_of_training_are_those_that_run(
    gpu_roads: Any, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With captions of one length nothing is padding. Nobody wants gradients of the features."""
    monkeypatch.setattr(gpu_roads, "LENGTHS", [7])
    road = gpu_roads.Road(bench.scale.small, "fp32", "train", 4)
    pair, prefix_length = road.pair, bench.scale.prefix_length
    hidden = pair.gpt2.width * prefix_length // 2
    not_wanted = 2 * road.batch * pair.clip.feature_dim * hidden
    assert bench.count(road).flops - not_wanted == done_flops(bench.work_of(road))


def test_public_shapes_have_their_published_sizes(gpu_roads: Any) -> None:
    """4.4 and 81 billion multiplications an image (Radford et al. 2021 and the usual counters), 124 and 355
    million weights."""
    from benchmarks.gpu_work import encode_work

    small, medium = gpu_roads.SMALL, gpu_roads.MEDIUM
    assert encode_work(small.clip, 1, 2).flops / 2e9 == pytest.approx(4.4, rel=0.02)
    assert encode_work(medium.clip, 1, 2).flops / 2e9 == pytest.approx(81, rel=0.02)
    for pair, millions in ((small, 124), (medium, 355)):
        gpt2 = pair.gpt2
        weights = gpt2.block_weights + gpt2.head_weights + gpt2.max_positions * gpt2.width
        assert weights / 1e6 == pytest.approx(millions, rel=0.01)


def test_bytes_of_decoding_are_weights_and_cache_once_a_step() -> None:
    from benchmarks.gpu_work import Decoding, Gpt2Sizes, decode_work, mapping_weights

    gpt2 = Gpt2Sizes(width=4, num_layers=2, num_heads=1, vocab_size=10)
    weights = 2 * 12 * 16 + 40
    one = decode_work(3, gpt2, Decoding(batch=5, beam_size=2, prefix_length=6, new_tokens=1), 2)
    assert one.bytes == 2 * (weights + mapping_weights(3, gpt2, 6))
    two = decode_work(3, gpt2, Decoding(batch=5, beam_size=2, prefix_length=6, new_tokens=2), 2)
    assert two.bytes - one.bytes == 2 * (weights + 5 * 6 * 2 * 2 * 4)  # 5 images' prefixes of 6 positions
    three = decode_work(3, gpt2, Decoding(batch=5, beam_size=2, prefix_length=6, new_tokens=3), 2)
    assert three.bytes - two.bytes == 2 * (weights + 5 * 8 * 2 * 2 * 4)  # and one of each of two beams


def test_the_nearest_limit_is_the_slowest(gpu_roads: Any) -> None:
    road = gpu_roads.Road(gpu_roads.SMALL, "bf16", "decode", 64)
    row = gpu_roads.Row(
        road=road,
        units=64,
        seconds=4.0,
        work=gpu_roads.Work(1e12, 1e9),
        products=1.0,
        memory=2.0,
        launches=0.5,
        share_of_bf16=0.25,
        steps=20,
        peak_bytes=0,
    )
    assert (row.nearer_limit, row.share_of_limit) == ("memory", 0.5)
    assert replace(row, launches=3.0).nearer_limit == "launches"


def test_roads_differ_and_the_most_wanted_come_first(gpu_roads: Any) -> None:
    roads = gpu_roads.roads(gpu_roads.Scale())
    assert len({road.name for road in roads}) == len(roads)
    wanted = [(road.pair, road.beam_size) for road in roads[:10] if road.stage == "caption"]
    assert wanted == [(pair, size) for pair in (gpu_roads.SMALL, gpu_roads.MEDIUM) for size in (1, 5)]
    assert [road.stage for road in roads].index("train") == 10
    assert {road.batch for road in roads} == {64, 256}


def test_every_caption_has_all_of_its_tokens(gpu_roads: Any, bench: Any) -> None:
    for beam_size in (1, 2):
        road = gpu_roads.Road(bench.scale.small, "bf16", "caption", 3, beam_size)
        captions = bench.work_of(road)()
        assert [len(of_image[0].token_ids) for of_image in captions] == 3 * [bench.scale.new_tokens]


def test_a_training_step_gives_a_finite_loss(gpu_roads: Any, bench: Any) -> None:
    step = bench.work_of(gpu_roads.Road(bench.scale.small, "bf16", "train", 2))
    assert 0 < step() < 20
    lengths = gpu_roads.caption_lengths(64)
    assert [len(of_image) for of_image in lengths] == 64 * [5]
    assert lengths[:3] == gpu_roads.caption_lengths(64)[:3]


def test_a_road_that_fails_leaves_the_others(
    gpu: Any, bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "_seconds", lambda work: 1.0)
    count = bench.count

    def failing(road: Any) -> Any:
        if road.beam_size > 1:
            raise torch.OutOfMemoryError("no memory is left")
        return count(road)

    monkeypatch.setattr(bench, "count", failing)
    report = gpu.describe(bench)
    assert all(item is None for item in gpu.run(bench, float("inf"), report))
    assert len(report["problems"]) == 8
    assert "no memory is left" in report["problems"][0]
    assert {row["beam_size"] for row in report["rows"]} == {1}
    assert "no memory is left" in capsys.readouterr().err


def test_the_program_runs_until_its_time_is_over(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Time for nothing: limits are measured, roads are named."""
    output = tmp_path / "numbers.json"
    words = ["gpu", "--device", "cpu", "--tiny", "--max-seconds", "0", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", words)
    assert gpu.main() == 0
    assert "| road | /s |" in capsys.readouterr().out
    report = json.loads(output.read_text())
    assert report["rows"] == report["problems"] == []
    assert len(report["skipped"]) == 27
    assert report["bf16_tflops"] > 0
