from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from qlorabench.defenses.dp_sgd import DpSgd, PoissonBatches
from qlorabench.federation.bench import describe
from qlorabench.federation.client import contribute, local_training
from qlorabench.federation.defense import Schedule
from qlorabench.federation.facts import DefenseFacts
from qlorabench.federation.protocol import Protocol
from qlorabench.tasks.encoding import collate

from ..federation.systems import PRIVATE, protocol_of, random_state, system

LR, SIGMA, CLIP, RATE = 0.3, 1.5, 0.7, 0.25


class Fixed:
    """A sampler that draws what it is told."""

    def __init__(self, *batches):
        self.steps, self._batches = len(batches), batches

    def batches(self, rng):
        return iter(self._batches)


def private(bench, *, clip_norm=CLIP, sigma=SIGMA, client=1, round=0, state=None, spec=None):
    """Return the model and the local training of a client whose noise multiplier is given, not calibrated."""
    spec = spec or system()
    defense = DpSgd(DpSgd.Config(clip_norm=clip_norm))
    plain, start = describe(bench, spec)
    guarantee = {"sample_rate": RATE, "noise_multiplier": sigma}
    told = DefenseFacts("dp-sgd", defense.config.model_dump(mode="json"), {"clients": [guarantee] * 3})
    protocol = Protocol(replace(plain, defenses=(told,)), [defense])
    model = bench.model(spec)
    model.load(state or start)
    seed = spec.random.child("round", round, "client", client)
    data = bench.tasks[0].client(client)
    return model, local_training(model, [defense], protocol, data, client=client, round=round, seed=seed)


@pytest.fixture
def spied(bench):
    """Return a function that runs steps without noise and tells (per-example gradients, clipped sum) of each."""

    def run(*batches, clip_norm):
        spec = system()
        state = random_state(describe(bench, spec)[0].full)
        model, training = private(bench, clip_norm=clip_norm, sigma=0.0, state=state)
        inner, seen = training.optimizer.clip_and_accumulate, []

        def spy():
            before = [None if p.summed_grad is None else p.summed_grad.clone() for p in training.parameters]
            each = [p.grad_sample.clone() for p in training.parameters]
            inner()
            sums = [
                p.summed_grad if b is None else p.summed_grad - b
                for p, b in zip(training.parameters, before, strict=True)
            ]
            seen.append((each, [s.clone() for s in sums]))

        training.optimizer.clip_and_accumulate = spy
        replace(training, sampler=Fixed(*map(np.array, batches))).run(np.random.default_rng(0))
        model.load(state)
        return model, training, seen

    return run


def single_gradients(model, training, rows):
    """Return for each row the gradients of its loss alone."""
    made = []
    for row in rows:
        logits = model(*collate(training.data, np.array([row])))
        loss = -torch.log_softmax(logits, dim=1)[0, training.data.labels[row]]
        made.append(torch.autograd.grad(loss, training.parameters))
    return made


def norm(gradients):
    return float(torch.cat([g.flatten() for g in gradients]).norm())


def test_gradients_are_those_of_each_example_on_its_own(spied):
    rows = [3, 14, 15, 9, 26]
    model, training, seen = spied(rows, clip_norm=1.0)
    ((each, _),) = seen
    naive = single_gradients(model, training, sorted(rows, key=lambda r: training.data.lengths[r]))
    assert sum(norm(g) > 0 for g in naive) == len(rows)
    for i, parameter in enumerate(zip(*naive, strict=True)):
        torch.testing.assert_close(each[i], torch.stack(parameter), rtol=1e-3, atol=1e-6)


def test_a_clipped_gradient_is_no_longer_than_the_clip_norm(spied):
    batches = [[row] for row in range(12)]
    model, training, seen = spied(*batches, clip_norm=0.5)
    longer = 0
    for (each, clipped), row in zip(seen, range(12), strict=True):
        (naive,) = single_gradients(model, training, [row])
        longer += norm([g[0] for g in each]) > 0.5
        assert norm(clipped) <= 0.5 * (1 + 1e-5)
        cosine = sum(float((a * b[0]).sum()) for a, b in zip(clipped, each, strict=True))
        assert cosine == pytest.approx(norm(clipped) * norm([g[0] for g in each]), rel=1e-4)
        assert len(naive) == len(clipped)
    assert longer > 0


def test_a_short_gradient_is_left_as_it_is(spied):
    _, _, seen = spied([5], clip_norm=1e6)
    ((each, clipped),) = seen
    for one, kept in zip(each, clipped, strict=True):
        torch.testing.assert_close(kept, one[0], rtol=1e-5, atol=0)


def test_microbatches_of_a_step_add_up_before_the_one_step(bench):
    rows = np.arange(20)
    state = random_state(describe(bench, system())[0].full)
    model, training = private(bench, clip_norm=1e6, sigma=0.0, state=state)
    before = [p.detach().clone() for p in training.parameters]
    replace(training, sampler=Fixed(rows)).run(np.random.default_rng(0))
    after = [p.detach().clone() for p in training.parameters]
    model.load(state)
    naive = [torch.stack(g).sum(0) for g in zip(*single_gradients(model, training, rows), strict=True)]
    for old, new, gradient in zip(before, after, naive, strict=True):
        torch.testing.assert_close(new, old - LR * gradient / (RATE * 40), rtol=1e-3, atol=1e-6)


def change_over(bench, steps, **options):
    """Return how far ``steps`` empty batches move the parameters, as one vector."""
    _, training = private(bench, **options)
    before = torch.cat([p.detach().flatten().double() for p in training.parameters])
    replace(training, sampler=Fixed(*[np.empty(0, dtype=np.int64)] * steps)).run(np.random.default_rng(0))
    return torch.cat([p.detach().flatten().double() for p in training.parameters]) - before


@pytest.mark.parametrize("steps", [1, 50])
def test_noise_is_as_strong_as_accounted_for_even_on_empty_batches(bench, steps):
    change = change_over(bench, steps)
    deviation = LR * SIGMA * CLIP / (RATE * 40)
    square = float(change.square().sum()) / (steps * deviation**2)
    low, high = stats.chi2.ppf([0.0005, 0.9995], change.numel())
    assert low < square < high
    assert abs(float(change.mean())) < 4 * (steps / change.numel()) ** 0.5 * deviation


def test_noise_looks_gaussian(bench):
    change = change_over(bench, 1).numpy()
    assert stats.kstest(change / change.std(), "norm").pvalue > 1e-3


def test_clients_and_rounds_have_their_own_noise_which_a_second_run_repeats(bench):
    draws = {place: change_over(bench, 1, client=place[0], round=place[1]) for place in ((1, 0), (2, 0), (1, 1))}
    assert torch.equal(draws[1, 0], change_over(bench, 1, client=1, round=0))
    for one, other in (((1, 0), (2, 0)), ((1, 0), (1, 1)), ((2, 0), (1, 1))):
        pair = torch.stack([draws[one], draws[other]]).numpy()
        assert abs(np.corrcoef(pair)[0, 1]) < 0.1


def test_steps_of_a_round_have_their_own_noise(bench):
    one, two = change_over(bench, 1), change_over(bench, 2)
    assert abs(np.corrcoef(one.numpy(), (two - one).numpy())[0, 1]) < 0.1


def test_every_row_is_drawn_at_the_rate_on_its_own():
    rows, rate, steps = 40, 0.2, 2000
    counts = np.zeros(rows)
    sizes = []
    for batch in PoissonBatches(rows, rate, steps).batches(np.random.default_rng(1)):
        counts[batch] += 1
        sizes.append(len(batch))
    low, high = stats.binom.ppf([1e-5, 1 - 1e-5], steps, rate)
    assert np.all((low <= counts) & (counts <= high))
    assert abs(np.mean(sizes) - rows * rate) < 4 * (rows * rate * (1 - rate) / steps) ** 0.5
    assert np.var(sizes) == pytest.approx(rows * rate * (1 - rate), rel=0.15)
    assert len(sizes) == steps


def test_an_empty_batch_can_happen():
    sizes = [len(b) for b in PoissonBatches(4, 0.1, 100).batches(np.random.default_rng(0))]
    assert 0 in sizes


@pytest.fixture(scope="module")
def clients():
    """Return what the adversary is told of each client of the toy system, of 16, 40 and 40 rows."""
    return protocol_of(system(PRIVATE)).facts.defense("dp-sgd").facts["clients"]


def test_epsilon_is_spent_and_not_overspent(clients):
    for client in clients:
        assert 0.95 * 8.0 <= client["epsilon"] <= 8.0


def test_every_client_is_accounted_at_its_own_rate_over_all_of_its_steps(monkeypatch):
    monkeypatch.setattr("qlorabench.defenses.dp_sgd._noise_multiplier", lambda *asked: asked)
    monkeypatch.setattr("qlorabench.defenses.dp_sgd._epsilon", lambda *asked: asked)
    schedule = Schedule(rounds=2, local_steps=3, batch_size=8, client_rows=(16, 40, 1000))
    told = DpSgd(DpSgd.Config(epsilon=3.0, delta=1e-6)).public_facts(schedule)["clients"]
    for client, rate in zip(told, (4 / 16, 8 / 40, 8 / 1000), strict=True):
        assert client["sample_rate"] == rate
        assert client["noise_multiplier"] == (3.0, 1e-6, rate, 6)
        assert client["epsilon"] == (client["noise_multiplier"], 1e-6, rate, 6)


def test_the_accounted_rate_is_the_one_of_the_sampler(clients, bench):
    spec = system(PRIVATE)
    protocol = protocol_of(spec)
    for client, told in enumerate(clients):
        data = bench.tasks[0].client(client)
        options = {"client": client, "round": 0, "seed": spec.random}
        training = local_training(bench.model(spec), protocol.defenses, protocol, data, **options)
        training.close()
        assert (training.sampler.rows, training.sampler.sample_rate) == (len(data), told["sample_rate"])
        assert training.sampler.steps * spec.task.training.rounds == told["steps"]
        assert training.optimizer.expected_batch_size == told["sample_rate"] * len(data)
        assert training.optimizer.noise_multiplier == told["noise_multiplier"]


def test_epsilon_agrees_with_another_accountant(clients):
    """Renyi accounting is looser than PRV, but not by much."""
    from opacus.accountants import RDPAccountant

    for client in clients:
        accountant = RDPAccountant()
        accountant.history = [(client["noise_multiplier"], client["sample_rate"], client["steps"])]
        assert client["epsilon"] < accountant.get_epsilon(1e-5) < 1.5 * client["epsilon"]


def leftovers(model):
    hooked = [
        name
        for name, m in model.named_modules()
        if m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
    ]
    return hooked + [name for name, p in model.named_parameters() if getattr(p, "grad_sample", None) is not None]


def plain_update(bench):
    spec = system()
    facts, start = describe(bench, spec)
    protocol = Protocol(facts, [])
    data = protocol.encode_broadcast(start, round=0, seed=spec.random)
    options = {"previous": None, "start": start, "client": 1, "round": 0, "seed": spec.random, "draws": spec.random}
    return contribute(bench.model(spec), protocol, bench.tasks[0].client(1), data, **options)


def test_nothing_of_it_is_left_on_the_model_afterwards(bench):
    before = plain_update(bench)
    model, training = private(bench)
    assert leftovers(model)
    training.run(np.random.default_rng(0))
    assert not leftovers(model)
    assert plain_update(bench) == before


def test_nothing_of_it_is_left_on_the_model_when_a_step_fails(bench):
    model, training = private(bench)
    with pytest.raises(IndexError):
        replace(training, sampler=Fixed(np.array([10_000]))).run(np.random.default_rng(0))
    left = leftovers(model)
    training.close()
    assert not left


def test_only_the_trained_layers_leave_evaluation_mode(bench):
    model, training = private(bench)
    active = [m for m in model.modules() if m.training]
    training.close()
    assert all(any(p.requires_grad for p in m.parameters(recurse=False)) for m in active)
