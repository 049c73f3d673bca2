import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlorabench.errors import UserError
from qlorabench.seeding import Seed
from qlorabench.tasks.encoding import Encoded
from qlorabench.tasks.task import PreparedTask
from qlorabench.threats.attack import Attack, misfit
from qlorabench.threats.capabilities import MEANING, Capability
from qlorabench.threats.challenge import draw_challenge
from qlorabench.threats.claims import Goal
from qlorabench.threats.models import ThreatSpec, presets

PRESETS = {threat.name: threat for threat in presets()}


@pytest.fixture(params=PRESETS)
def threat(request):
    return PRESETS[request.param]


def test_every_seat_of_the_design_is_a_preset():
    assert list(PRESETS) == [
        "eavesdropper",
        "client",
        "colluding-clients",
        "server",
        "server-secure-aggregation",
        "malicious-server",
        "end-user",
    ]


def test_every_capability_has_plain_words():
    assert set(MEANING) == set(Capability)


def test_a_card_says_who_sees_what_and_what_is_left_out(threat):
    rows = dict(line.split("  ", 1) for line in threat.card().splitlines())
    assert [name.strip() for name in rows] == ["who", "sees", "assumed", "not covered"]
    assert all(text.strip() for text in rows.values())
    assert [words.strip() for words in rows["sees"].split(";")] == threat.sees
    assert len(threat.sees) == len(threat.grants)


def test_only_clients_have_seats_among_the_clients(threat):
    assert (threat.colluders > 0) == (Capability.OWN_DATA in threat.grants) == ("client" in threat.name)


def test_only_the_server_sees_the_uplink(threat):
    assert (Capability.AGGREGATE_UPDATE in threat.grants) == ("server" in threat.name)


def test_secure_aggregation_takes_away_single_updates_and_nothing_else():
    plain, secure = PRESETS["server"].grants, PRESETS["server-secure-aggregation"].grants
    assert plain - secure == {Capability.OTHERS_UPDATES}
    assert secure < plain


def test_a_malicious_server_may_choose_what_it_sends():
    assert PRESETS["malicious-server"].grants - PRESETS["server"].grants == {Capability.CHOSEN_BROADCASTS}


def test_the_number_of_colluders_is_in_the_label_and_on_the_card():
    threat = ThreatSpec("colluding-clients", 3).resolve()
    assert threat.label == "colluding-clients(3)"
    assert threat.colluders == 3
    assert "first 3 clients" in threat.card()


def test_an_unknown_seat_gets_the_nearest_name():
    with pytest.raises(UserError, match="Did you mean 'eavesdropper'"):
        ThreatSpec("eavesdroper").resolve()


def test_a_misfit_names_what_is_missing():
    class Greedy(Attack):
        goal = Goal.MEMBERSHIP
        requires = frozenset({Capability.OTHERS_UPDATES, Capability.BROADCASTS})

    assert misfit(Greedy, PRESETS["server"]) is None
    assert misfit(Greedy, PRESETS["end-user"]) == "needs broadcasts, others-updates"


def test_who_holds_the_adapter_has_no_use_for_stealing_it():
    class Thief(Attack):
        goal = Goal.ADAPTER
        requires = frozenset({Capability.BROADCASTS})

    assert {name for name, threat in PRESETS.items() if misfit(Thief, threat) is None} == {
        "eavesdropper",
        "client",
        "colluding-clients",
    }


def dealt(sizes, holdout):
    """Return a task of made-up rows, each client's apart from the others' and from what nobody trains on."""
    rows = np.random.default_rng(0).permutation(sum(sizes) + holdout)
    parts = np.split(rows, np.cumsum(sizes))
    ids = tuple(np.array([i]) for i in range(len(rows)))
    encoded = Encoded(ids, np.zeros(len(rows), np.int64), np.ones(len(rows), np.int64), 0)
    return PreparedTask(encoded, (), ("a", "b"), tuple(parts[:-1]), parts[-1][:0], parts[-1])


@given(
    sizes=st.lists(st.integers(1, 20), min_size=2, max_size=5),
    holdout=st.integers(4, 40),
    most=st.integers(2, 30),
    data=st.data(),
)
def test_a_challenge_is_balanced_and_leaves_the_seats_own_rows_out(sizes, holdout, most, data):
    task = dealt(sizes, holdout)
    colluders = data.draw(st.integers(0, len(sizes) - 1))
    challenge = draw_challenge(task, insiders=colluders, most=most, seed=Seed(data.draw(st.integers(0, 5))))
    inside, outside = challenge.rows[challenge.members], challenge.rows[~challenge.members]
    others = np.concatenate(task.client_rows[colluders:])
    assert len(inside) == len(outside) == min(most, len(others), holdout)
    assert len(set(challenge.rows.tolist())) == len(challenge.rows)
    assert set(inside.tolist()) <= set(others.tolist())
    assert set(outside.tolist()) <= set(task.holdout.tolist())


def test_members_and_others_are_shuffled():
    challenge = draw_challenge(dealt([40], 40), insiders=0, most=40, seed=Seed(0))
    assert 10 < np.count_nonzero(np.diff(challenge.members)) < 70
    assert 5 < challenge.members[:40].sum() < 35


def test_a_challenge_follows_from_its_seed():
    task = dealt([20, 20], 20)
    first, again, other = (draw_challenge(task, insiders=1, most=10, seed=Seed(s)) for s in (0, 0, 1))
    assert np.array_equal(first.rows, again.rows)
    assert not np.array_equal(first.rows, other.rows)


def test_a_seat_of_every_client_has_no_membership_game():
    task = dealt([20, 20], 20)
    with pytest.raises(UserError):
        draw_challenge(task, insiders=2, most=10, seed=Seed(0))
