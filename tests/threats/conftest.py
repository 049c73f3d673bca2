import pytest

from qlorabench.engines.measure import measure_utility

from ..federation.systems import FROZEN, QUANTIZED, system, toy_bench, train


@pytest.fixture(scope="session")
def bench():
    return toy_bench()


@pytest.fixture(scope="session")
def trained(tmp_path_factory, bench):
    """Return spec, folder and store of federations by name, trained and measured in this process as in a worker."""
    found = {}
    for name, defenses in {"quantized": (QUANTIZED,), "frozen": (FROZEN, QUANTIZED)}.items():
        spec, out = system(*defenses, head="frozen"), tmp_path_factory.mktemp(name)
        store = train(spec, out)
        measure_utility(bench, spec, out)
        found[name] = (spec, out, store)
    return found
