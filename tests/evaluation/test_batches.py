"""Batches that a device's memory bounds, with a device that is a number."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from promptseg.evaluation.batches import BatchSize, answered, is_out_of_memory


class OutOfMemoryError(RuntimeError):
    """What torch calls it."""


class Device:
    """Squares numbers, at most ``fits`` at a time; notes how many it was asked together."""

    def __init__(self, fits: int) -> None:
        self.fits = fits
        self.asked: list[int] = []

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        """Return the squares."""
        self.asked.append(len(numbers))
        if len(numbers) > self.fits:
            raise OutOfMemoryError("CUDA error")
        if 13 in numbers:
            raise ValueError("13 brings bad luck")
        return [number**2 for number in numbers]


def test_a_batch_that_does_not_fit_is_asked_in_parts() -> None:
    """All are answered in order, and the limit is what did fit, for good."""
    device, limit = Device(fits=3), BatchSize(8, 8)
    assert answered(device, range(8), limit) == [n**2 for n in range(8)]
    assert device.asked == [8, 4, 2, 2, 2, 2]
    assert (limit.size, limit.most) == (2, 2)


def test_a_limit_grows_to_what_fits() -> None:
    """From one to twice as many after each full batch, until memory says no."""
    device, limit = Device(fits=5), BatchSize(1, 32)
    for _ in range(6):
        answered(device, range(limit.size), limit)
    assert device.asked == [1, 2, 4, 8, 4, 4, 4, 4]
    assert limit.size == 4


def test_only_the_culprit_of_a_batch_is_lost() -> None:
    """Its error takes its place, without the frames that hold tensors; the limit stays."""
    device, limit = Device(fits=99), BatchSize(8, 8)
    found = answered(device, range(8, 16), limit)
    assert isinstance(found[5], ValueError)
    assert found[5].__traceback__ is None
    assert [f for f in found if not isinstance(f, Exception)] == [n**2 for n in range(8, 16) if n != 13]
    assert limit.size == 8


def test_what_fits_in_no_batch_is_an_error() -> None:
    """One question that needs more memory than there is fails by itself."""
    (found,) = answered(Device(fits=0), [3], BatchSize(1, 1))
    assert isinstance(found, OutOfMemoryError)


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (MemoryError(), True),
        (OutOfMemoryError("CUDA error"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"), True),
        (RuntimeError("CUDNN_STATUS_EXECUTION_FAILED"), False),
        (ValueError("wrong shape"), False),
    ],
)
def test_signs_of_full_memory(error: Exception, wanted: bool) -> None:
    """Python's, torch's by type or by text, and nothing else."""
    assert is_out_of_memory(error) is wanted
