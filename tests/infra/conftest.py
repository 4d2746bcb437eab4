"""The chart with everything on, for whoever looks at a part of it."""

import pytest

from tests.infra.helm import Object, render


@pytest.fixture(scope="session")
def everything() -> list[Object]:
    return render("everything")
