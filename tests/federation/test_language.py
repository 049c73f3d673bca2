"""What is public of a federation of language models, and what it trains."""

import json

import numpy as np

from qlorabench.federation.bench import describe
from qlorabench.federation.facts import PublicFacts
from qlorabench.suite.plan import outline
from qlorabench.suite.resolve import ResolvedSystem

from .language import CANARIES, language_bench, language_system, train_language


def test_the_form_of_canaries_is_public_and_what_they_say_is_not():
    bench, spec = language_bench(), language_system()
    facts, _ = describe(bench, spec)
    told = json.dumps(facts.to_json())
    assert PublicFacts.from_json(json.loads(told)) == facts
    assert (facts.objective, facts.canaries.count) == ("language-modeling", CANARIES["count"])
    for canary in bench.tasks[0].canaries:
        assert canary.prompt not in told


def test_copies_of_canaries_count_among_a_clients_rows_before_and_after_training():
    bench, spec = language_bench(), language_system()
    facts, _ = describe(bench, spec)
    plan = outline(ResolvedSystem("plain", spec.task, (), (), "plain"))
    assert facts.client_rows == plan.client_rows == (16, 40 + 12, 40 + 12)
    assert (plan.objective, plan.canaries) == (facts.objective, facts.canaries)


def test_a_client_trains_on_its_canaries_and_on_nobody_elses(tmp_path):
    spec = language_system(rounds=2, local_steps=8)
    store, task = train_language(spec, tmp_path), language_bench().tasks[0]
    for client in range(3):
        drawn = {row for round in store.secrets.batches(client) for step in round for row in step}
        own = set(task.canary_rows[[c.client == client for c in task.canaries if c.inserted]].tolist())
        assert drawn & set(task.canary_rows.tolist()) == own
        assert drawn <= set(task.client_rows[client].tolist())
    assert np.isin(task.canary_rows, np.concatenate(task.client_rows[1:])).all()
