"""Records to test with: a cell of each kind, every field overridable."""

import hashlib

from qlorabench.records.record import Record


def record(**fields):
    base = {
        "suite": "s", "task": "t", "system": "plain", "seed": 0, "kind": "utility", "threat": None,
        "attack": None, "goal": None, "status": "ok", "metric": "accuracy_server", "value": 0.8, "low": None,
        "high": None, "n": 100, "control": None, "leakage": None, "leakage_low": None, "leakage_high": None,
        "validated": None, "headline": False, "note": "", "seconds": 1.5,
    }  # fmt: skip
    base |= fields
    names = ("suite", "task", "system", "seed", "kind", "threat", "attack")
    base.setdefault("key", hashlib.sha256(repr([base[n] for n in names]).encode()).hexdigest()[:12])
    return Record(**base)


def leak(leakage, low=None, high=None, *, goal="membership", threat="client", attack="loss", **fields):
    headlines = {"membership": "auc", "reconstruction": "token_recall", "adapter": "error_removed"}
    metric = headlines.get(goal, "extraction@1")
    base = {"kind": "leakage", "goal": goal, "threat": threat, "attack": attack, "metric": metric}
    base |= {"value": 0.7, "control": 0.5, "headline": True, "validated": True}
    return record(**base | {"leakage": leakage, "leakage_low": low, "leakage_high": high} | fields)


def lost(status, **fields):
    """A cell without numbers, as the runner records it."""
    return leak(None, status=status, value=None, control=None, validated=None, **{"note": f"why {status}"} | fields)


def costs(system="plain", seed=0, *, server=0.84, client=0.82, down=12_345.0, epsilon=None, **fields):
    where = {"system": system, "seed": seed}
    accuracy = {"low": server - 0.02, "high": server + 0.02, "control": 0.6, "validated": True}
    return [
        record(value=server, **where, **accuracy | fields),
        record(metric="accuracy_client", value=client, **where, control=0.6, validated=True),
        record(metric="epsilon", value=epsilon, **where, note="" if epsilon else "no DP"),
        record(kind="bandwidth", metric="bytes_down_client_round", value=down, **where),
        record(kind="bandwidth", metric="bytes_up_client_round", value=512.0, **where),
        record(kind="bandwidth", metric="bytes_total", value=4_560_000.0, **where),
    ]
