import pytest


@pytest.fixture(autouse=True)
def own_cache(request, tmp_path, monkeypatch):
    """Keep every test but the slow ones out of the user's cache."""
    if "slow" not in request.keywords:
        monkeypatch.setenv("QLORABENCH_CACHE", str(tmp_path / "cache"))
