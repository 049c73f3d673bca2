"""Views as the harness hands them to attacks."""

from pathlib import Path
from unittest import mock

from qlorabench.engines import measure
from qlorabench.engines.measure import measure_leakage
from qlorabench.engines.scene import AttackSpec
from qlorabench.plugins import registry
from qlorabench.threats.models import presets

from ..federation.systems import toy_bench

PRESETS = {threat.label: threat for threat in presets()}
CANDIDATES = 20
SPY = f"{Path(__file__).parent / 'spy.py'}:Spy"


def view_of(spec, out, threat, *, bench=None, candidates=CANDIDATES):
    """Return what an attack in the seat ``threat`` is given of the trained federation of ``spec``."""
    attack = AttackSpec(
        threat=threat, name=SPY, label="spy", config={}, candidates=candidates, insiders=threat.colluders
    )
    with mock.patch.object(measure, "judge", return_value=[]):
        measure_leakage(bench or toy_bench(), spec, out, attack)
    return registry("attacks").load(SPY).view
