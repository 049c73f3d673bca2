import numpy as np
import pytest

from qlorabench.seeding import Seed
from qlorabench.tasks.canaries import Canary
from qlorabench.threats.models import presets
from qlorabench.threats.prompts import draw_prompts

from ..federation.language import language_bench, language_system, train_language
from .reach import places_of, reachable
from .seats import view_of


def canaries(count, *, clients=3, between=""):
    """Return ``count`` canaries, each second one inserted, dealt in turn to the clients after the first."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        secrets = ["".join(between + d for d in f"{n:04d}") for n in rng.choice(10_000, 20, replace=False)]
        client = 1 + i // 2 % (clients - 1) if i % 2 == 0 else None
        rows.append(Canary(f"The code of {i} is", secrets[0], client is not None, client, tuple(secrets[1:])))
    return tuple(rows)


@pytest.mark.parametrize("between", ["", " "])
def test_a_prompt_shows_the_form_and_hides_which_secret_is_true(between):
    game = draw_prompts(canaries(40, between=between), insiders=0, seed=Seed(0))
    places = []
    for prompt, canary in zip(game.prompts, game.canaries, strict=True):
        assert (prompt.prompt, prompt.length) == (canary.prompt, 4)
        assert prompt.alphabet == tuple(f"{between}{d}" for d in range(10))
        assert set(prompt.references) == {canary.secret, *canary.references}
        assert len(prompt.references) == 20
        places.append(prompt.references.index(canary.secret))
    assert len(set(places)) > 10, "the true secret stands anywhere"


def test_inserted_and_never_inserted_ones_are_mixed_in_an_order_that_tells_nothing():
    drawn = draw_prompts(canaries(40), insiders=0, seed=Seed(0)).canaries
    assert 10 < np.count_nonzero(np.diff([c.inserted for c in drawn])) < 30
    assert sorted(c.prompt for c in drawn) == sorted(c.prompt for c in canaries(40))


def test_what_the_seats_own_clients_read_is_not_asked():
    drawn = draw_prompts(canaries(40), insiders=2, seed=Seed(0)).canaries
    assert {c.client for c in drawn} == {None, 2}
    assert sum(not c.inserted for c in drawn) == 20


def test_a_game_follows_from_its_seed():
    first, again, other = (draw_prompts(canaries(10), insiders=0, seed=Seed(s)) for s in (0, 0, 1))
    assert first == again
    assert first.prompts != other.prompts


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    spec, out = language_system(), tmp_path_factory.mktemp("out")
    train_language(spec, out)
    return spec, out


@pytest.mark.parametrize("threat", presets(), ids=lambda threat: threat.label)
def test_no_seat_can_reach_who_is_inserted_or_which_secret_is_true(federation, threat):
    task, view = language_bench().tasks[0], view_of(*federation, threat, bench=language_bench())
    asked = [c for c in task.canaries if c.client is None or c.client >= threat.colluders]
    assert sorted(p.prompt for p in view.prompts) == sorted(c.prompt for c in asked)
    blobs, texts = reachable(view)
    assert any(canary.secret in texts.values() for canary in asked), "the search finds what is granted"
    for canary in asked:
        assert canary.text not in texts.values()
    rows = {c.prompt: row for c, row in zip((c for c in task.canaries if c.inserted), task.canary_rows, strict=True)}
    for canary in asked:
        assert not canary.inserted or not places_of(task.encoded.ids[rows[canary.prompt]].tobytes(), blobs)
