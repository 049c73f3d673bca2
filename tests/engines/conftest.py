import pytest

from ..federation.systems import toy_bench


@pytest.fixture(scope="session")
def bench():
    return toy_bench()
