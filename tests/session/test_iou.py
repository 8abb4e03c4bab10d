"""The benchmark, collected in this repository: ``pytest -k us_kidney``."""

from promptseg.benchmark import test_iou

__all__ = ["test_iou"]
