import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlorabench.errors import UserError
from qlorabench.tasks.targets import Layers, match_targets, summarised, wrong_targets

LAYERS = Layers(
    linear=(
        "layer.0.self.query",
        "layer.0.dense",
        "layer.1.self.query",
        "layer.1.dense",
        "pooler.dense",
        "pooler.last",
    ),
    unreached=frozenset({"pooler.dense", "pooler.last"}),
    others=(("words", "Embedding"), ("layer", "ModuleList"), ("layer.0.self", "Attention"), ("pooler", "Pooler")),
)


def test_a_target_stands_for_every_layer_that_ends_in_it_and_trains():
    found = match_targets(("query", "dense", "1.dense"), LAYERS)
    assert found == {
        "query": ("layer.0.self.query", "layer.1.self.query"),
        "dense": ("layer.0.dense", "layer.1.dense"),
        "1.dense": ("layer.1.dense",),
    }


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("querry", "matches nothing in the backbone. Did you mean 'query'?"),
        ("uery", "matches nothing"),
        ("words", r"matches words \(Embedding\), which is no linear layer; adapters go on torch.nn.Linear"),
        ("self", r"layer.0.self \(Attention\)"),
        ("last", "matches pooler.last alone, which the loss does not reach"),
    ],
)
def test_each_target_that_cannot_be_adapted_is_named(target, said):
    with pytest.raises(UserError, match=said) as error:
        match_targets(("query", target, "nothing-like-it"), LAYERS)
    assert f"'{target}'" in str(error.value)
    assert "'nothing-like-it' matches nothing" in str(error.value)
    assert "'query' " not in str(error.value).replace("mean 'query'", "")
    assert str(error.value).endswith("Linear layers of the backbone: dense, query.")


@given(st.lists(st.text(st.sampled_from("dense.query01layrspo"), max_size=20), max_size=4))
def test_a_target_is_either_wrong_or_stands_for_something(targets):
    wrong = wrong_targets(targets, LAYERS)
    assert set(wrong) <= set(targets)
    right = [target for target in targets if target not in wrong]
    assert all(match_targets(right, LAYERS).values())


def test_layers_are_summarised_by_where_they_stand():
    names = ["h.0.attn.c", "h.10.attn.c", "h2.c", "c.1"]
    assert summarised(names) == "2 x h.*.attn.c, 1 x h2.c, 1 x c.*"
