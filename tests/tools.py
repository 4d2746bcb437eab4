"""Tools that a machine may lack, and CI may not."""

import os
from typing import NoReturn

import pytest


def lacks(reason: str) -> NoReturn:
    """``reason``: what is missing, and how it is had."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
