import pytest

from .systems import toy_bench


@pytest.fixture(scope="session")
def bench():
    return toy_bench()
