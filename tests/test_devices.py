"""Where to compute: what was asked for, or one sentence why not."""

import subprocess
import sys

import pytest
import torch

from pixtell.devices import choose_placement
from pixtell.errors import OptionError

HAS_CUDA = torch.cuda.is_available()
HAS_ACCELERATOR = HAS_CUDA or torch.backends.mps.is_available()


def test_captions_are_made_in_fp32_wherever_they_are_made() -> None:
    placement = choose_placement()
    assert placement.dtype == torch.float32
    assert placement.device.type in ("cuda", "mps", "cpu")
    assert (placement.device.type == "cpu") == (not HAS_ACCELERATOR)
    assert placement.device.type in placement.reason


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_what_is_asked_for_is_taken_in_training_too(name: str, dtype: torch.dtype) -> None:
    for training in (False, True):
        placement = choose_placement("cpu", name, training=training)
        assert placement.device == torch.device("cpu")
        assert placement.dtype == dtype
        assert placement.reason == f"cpu, {name}: as asked"


def test_training_computes_in_what_the_cpu_has() -> None:
    placement = choose_placement("cpu", training=True)
    assert placement.dtype in (torch.float32, torch.bfloat16)
    assert ("natively" in placement.reason) == (placement.dtype == torch.bfloat16)


@pytest.mark.parametrize(
    ("device", "dtype", "sentence"),
    [
        ("tpu", "auto", "--device 'tpu' is unknown; choose one of auto, cpu, cuda, mps."),
        ("", "auto", "--device '' is unknown; choose one of auto, cpu, cuda, mps."),
        ("cpu:x", "auto", "--device 'cpu:x' is not a device; write for example cpu:0."),
        ("cpu:1", "auto", "--device cpu:1 is not on this machine, which has 1; count from cpu:0."),
        ("cpu", "int4", "--dtype 'int4' is unknown; choose one of auto, fp32, bf16, fp16."),
        ("cpu", "fp16", "--dtype fp16 is not for a CPU; choose fp32 or bf16 there."),
    ],
)
def test_what_cannot_be_is_one_sentence(device: str, dtype: str, sentence: str) -> None:
    with pytest.raises(OptionError) as error:
        choose_placement(device, dtype)
    assert str(error.value) == sentence


@pytest.mark.skipif(HAS_CUDA, reason="there is a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_device_that_is_not_there_is_one_sentence(device: str) -> None:
    with pytest.raises(OptionError) as error:
        choose_placement(device)
    assert str(error.value) == (
        f"--device {device} is not on this machine; leave it out or choose --device cpu."
    )


def test_one_thread() -> None:
    code = (
        "import torch; from pixtell.devices import use_one_thread; torch.set_num_threads(3); "
        "use_one_thread(); print(torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
