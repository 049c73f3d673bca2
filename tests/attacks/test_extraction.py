"""The two attacks on canaries, on the toy language model and on models of which everything is known."""

import itertools
from functools import cache

import numpy as np
import pytest
import torch

from qlorabench.attacks._continuations import Context, by_rows, by_tree, continuations_for
from qlorabench.attacks._secrets import Listener, Reading, read_secrets, search
from qlorabench.attacks.differential_score import DifferentialScore, DifferentialScoreConfig
from qlorabench.attacks.extraction import Extraction, ExtractionConfig
from qlorabench.engines.federations import ensure_trained
from qlorabench.engines.measure import measure_leakage
from qlorabench.engines.scene import AttackSpec
from qlorabench.federation.bench import Bench, SystemSpec, describe
from qlorabench.hashing import digest
from qlorabench.seeding import Seed
from qlorabench.suite.schema import TaskConfig
from qlorabench.tasks.backbones import load_backbone
from qlorabench.tasks.task import load_data, prepare
from qlorabench.threats.lab import Lab
from qlorabench.threats.models import presets
from qlorabench.threats.prompts import draw_prompts
from qlorabench.threats.view import SecretPrompt

from ..federation.language import CANARIES, HERE, language_bench, language_system, language_task
from ..federation.systems import QUANTIZED, InProcess, random_state, toy_bench
from ..federation.systems import system as classifier
from ..threats.seats import view_of

SEATS = {threat.name: threat for threat in presets()}


SEEDS = (0, 1, 2)


@cache
def bench():
    """Return a bench whose clients have few texts beside their canaries."""
    task = config()
    backbone = load_backbone(task.backbone, base=HERE, objective=task.objective)
    data = load_data(task, base=HERE)
    prepared = {seed: prepare(task, data, backbone.tokenizer, seed=Seed(seed, ("data",))) for seed in SEEDS}
    return Bench(backbone, prepared)


def config():
    training = {"rounds": 20, "local_steps": 8, "batch_size": 8, "optimizer": {"kind": "adamw", "lr": 0.02}}
    changes = {"canaries": {**CANARIES, "count": 8, "repetitions": 8}, "rows_per_client": 16}
    return TaskConfig.model_validate({**language_task(**training).model_dump(), **changes})


@pytest.fixture(scope="module", params=[(), (QUANTIZED,)], ids=["plain", "quantized"])
def federations(request, tmp_path_factory):
    """A federation for each seed, with the folder that it was trained into."""
    out = tmp_path_factory.mktemp("out")
    specs = [SystemSpec(digest([request.param, s]), config(), request.param, s, HERE) for s in SEEDS]
    for spec in specs:
        ensure_trained(InProcess(bench()), spec, out)
    return [(spec, out) for spec in specs]


@pytest.fixture(scope="module")
def federation(federations):
    return federations[0]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    _, start = describe(language_bench(), language_system())
    return Lab(language_bench().model(language_system()), language_bench().backbone.tokenizer, start)


@pytest.fixture
def prompt():
    return SecretPrompt("The door code of Maria Keller is", tuple(f" {d}" for d in range(10)), 3, ())


@pytest.fixture
def state(lab):
    return random_state(lab.model.layout, scale=0.5)


STRINGS = [(), (3,), (3, 1), (3, 1, 4), (3, 1, 5), (9, 9, 9), (0,)]


def test_a_tree_says_the_same_as_a_text_for_every_string(lab, prompt, state):
    context = Context.of(lab.tokenizer, prompt)
    model = lab.mount(state)
    tree = by_tree(model, context, STRINGS)
    np.testing.assert_allclose(tree, by_rows(model, context, STRINGS), atol=1e-4)
    np.testing.assert_allclose(np.exp(tree).sum(1), 1.0)
    for found, string in zip(tree, STRINGS, strict=True):
        ids = torch.tensor([[*context.ids, *(context.symbols[s] for s in string)]])
        with torch.no_grad():
            logits = model(ids, torch.ones_like(ids))[0, -1, list(context.symbols)].double()
        np.testing.assert_allclose(found, (logits - logits.logsumexp(0)).numpy(), atol=1e-4)


def test_a_model_that_ignores_the_mask_is_read_text_by_text(lab, prompt, state):
    class Deaf:
        def __init__(self, model):
            self.model = model

        def __call__(self, ids, mask):
            return self.model(ids, mask)

        def encoder(self, *, input_ids, attention_mask, position_ids, use_cache):
            return self.model.encoder(input_ids=input_ids, position_ids=position_ids, use_cache=use_cache)

    context, model = Context.of(lab.tokenizer, prompt), lab.mount(state)
    assert continuations_for(model, context) is by_tree
    assert continuations_for(Deaf(model), context) is by_rows


def test_a_prompts_tokens_are_those_of_training(lab, prompt):
    context = Context.of(lab.tokenizer, prompt)
    spoken = lab.tokenizer.convert_ids_to_tokens(list(context.ids))
    assert spoken == ["[BOS]", "The", "door", "code", "of", "Maria", "Keller", "is"]
    assert lab.tokenizer.convert_ids_to_tokens(list(context.symbols)) == list("0123456789")


def made_up(snapshots, symbols, *, seed=0):
    """Return continuations of models that say something random, and fixed, after each string."""

    def after(model, context, strings):
        rows = [np.random.default_rng([seed, model, len(s), *s]).dirichlet(np.full(symbols, 0.3)) for s in strings]
        return np.log(np.array(rows))

    class Mounts:
        def mount(self, state):
            return state

        def recall(self, state, question, compute, *, rows):
            return compute(state).ravel()

    return Listener(Mounts(), range(snapshots), None, after)


def naive(listener, string):
    """Return the log-probabilities of a string's symbols, (snapshots, symbols), one by one."""
    return np.array(
        [
            [listener.compute(s, None, [string[:end]])[0, symbol] for end, symbol in enumerate(string)]
            for s in listener.snapshots
        ]
    )


def test_log_probabilities_are_those_of_each_symbol_behind_its_prefix():
    listener, strings = made_up(3, 4), [(0, 1, 2), (3, 3, 3), (0, 1, 3)]
    found = listener.log_probabilities(strings)
    assert found.shape == (3, 3, 3)
    for i, string in enumerate(strings):
        np.testing.assert_array_equal(found[:, i], naive(listener, string))


def test_nothing_is_computed_twice():
    listener, asked = made_up(2, 4), []
    compute = listener.compute
    listener.compute = lambda *rest: asked.extend(rest[-1]) or compute(*rest)
    for _ in range(2):
        listener.log_probabilities([(0, 1, 2), (0, 1, 3)])
    assert sorted(asked) == sorted([(), (0,), (0, 1)] * 2)


def differences(log_probabilities):
    return np.diff(np.exp(log_probabilities), axis=0).sum(-1).max(0)


@pytest.mark.parametrize("rule", [lambda x: x[-1].sum(-1), differences])
def test_a_beam_as_wide_as_the_space_finds_its_best_strings_in_order(rule):
    listener = made_up(3, 4)
    space = list(itertools.product(range(4), repeat=3))
    scores = rule(np.array([naive(listener, s) for s in space]).transpose(1, 0, 2))
    best = [space[i] for i in np.argsort(-scores, kind="stable")]
    assert search(listener, symbols=4, length=3, width=64, rule=rule) == best
    assert len(search(listener, symbols=4, length=3, width=5, rule=rule)) == 5


@pytest.mark.parametrize(
    ("attack", "naive_score"),
    [
        (Extraction(ExtractionConfig()), lambda p: np.log(p[-1] / p[0]).sum()),
        (Extraction(ExtractionConfig(ranking="likelihood")), lambda p: np.log(p[-1]).sum()),
        (DifferentialScore(DifferentialScoreConfig()), lambda p: np.log(p[-1] / p[0]).sum()),
        (DifferentialScore(DifferentialScoreConfig(relative="difference")), lambda p: (p[-1] - p[0]).sum()),
        (
            DifferentialScore(DifferentialScoreConfig(snapshots="consecutive", relative="difference", most=3)),
            lambda p: max((p[11] - p[1]).sum(), (p[21] - p[11]).sum()),
        ),
    ],
    ids=["calibrated", "likelihood", "ratio", "difference", "consecutive"],
)
def test_references_have_the_score_of_the_paper(federation, attack, naive_score):
    """Token by token, from plain forward passes of the backbone and of every broadcast."""
    view = view_of(*federation, SEATS["client"], bench=bench())
    claim = attack.run(view, np.random.default_rng(0))
    lab, prompt = view.lab, view.prompts[0]
    context = Context.of(lab.tokenizer, prompt)
    for text, score in list(zip(prompt.references, claim.scores[0], strict=True))[:2]:
        string = tuple(map(int, text))
        rows = []
        for state in (lab.bare, *(b.state for b in view.broadcasts)):
            said = [by_rows(lab.mount(state), context, [string[:end]])[0, s] for end, s in enumerate(string)]
            rows.append(np.exp(said))
        assert score == pytest.approx(naive_score(np.array(rows)), abs=1e-3)


@pytest.mark.parametrize("name", ["extraction", "differential-score"])
def test_inserted_secrets_are_read_out_and_others_are_not(federations, name):
    """Twelve secrets of three seeds together: how well one training remembers four of them is chance."""
    threat = SEATS["client"]
    spec = AttackSpec(threat=threat, name=name, label=name, config={}, candidates=10, insiders=threat.colluders)
    runs = [{row.metric: row for row in measure_leakage(bench(), *federation, spec)} for federation in federations]

    def mean(metric, field="value"):
        return np.mean([getattr(rows[metric], field) for rows in runs])

    assert mean("extraction@10") >= 0.75
    assert mean("extraction@10") > mean("extraction@10", "control") + 0.5
    assert mean("extraction@10", "leakage_low") > 0
    assert mean("extraction@1") >= 0.4
    assert mean("exposure_bits") > 7 > 4 > mean("exposure_bits", "control")


def test_a_bare_adapter_tells_nothing(lab):
    """Under the calibrated rule every secret is as likely as any other."""
    game = draw_prompts(language_bench().tasks[0].canaries, insiders=0, seed=language_system().random)
    how = Reading(search=lambda x: x[-1].sum(-1), rank=lambda x: (x[-1] - x[0]).sum(-1), width=3)
    claim = read_secrets(lab, game.prompts, (lab.bare, lab.bare), how, note="")
    np.testing.assert_allclose(claim.scores, 0.0, atol=1e-6)
    assert all(len(set(guesses)) == 3 for guesses in claim.guesses)


def test_guesses_do_not_come_from_the_references(federation):
    view = view_of(*federation, SEATS["end-user"], bench=bench())
    prompts = view.prompts
    other = tuple(SecretPrompt(p.prompt, p.alphabet, p.length, p.references[:2]) for p in prompts)
    how = Reading(search=lambda x: x[-1].sum(-1), rank=lambda x: x[-1].sum(-1), width=4)
    found = [read_secrets(view.lab, asked, (view.lab.bare, view.released), how, note="") for asked in (prompts, other)]
    assert found[0].guesses == found[1].guesses


@pytest.mark.parametrize("cls", [Extraction, DifferentialScore])
def test_a_task_without_canaries_is_blind(cls):
    assert cls(cls.Config()).blind(describe(language_bench(), language_system())[0]) is None
    assert "no canaries" in cls(cls.Config()).blind(describe(toy_bench(), classifier())[0])
