import pytest
import torch

from qlorabench.codecs import BlockCodec
from qlorabench.defenses.quantized_broadcast import QuantizedBroadcast
from qlorabench.federation.defense import RoundContext
from qlorabench.federation.facts import DefenseFacts, PublicFacts
from qlorabench.federation.protocol import Protocol
from qlorabench.federation.state import Layout, TensorSpec
from qlorabench.seeding import Seed
from qlorabench.suite.schema import HeadConfig, LoraConfig, TrainingConfig

from ..federation.systems import ROUNDS, protocol_of, random_state, system, train

RULES = ["keep-residual", "drop-residual", "towards-clients", "towards-clients-decayed"]
MINILM = [f"encoder.layer.{i}.attention.self.{m}" for i in range(6) for m in ("query", "key", "value")]


def minilm_protocol(*, frozen_a, **config):
    """Return the protocol of rank-8 adapters on MiniLM under a frozen head."""
    full = Layout(
        tuple(
            spec for m in MINILM for spec in (TensorSpec(f"{m}.A", (8, 384), "A"), TensorSpec(f"{m}.B", (384, 8), "B"))
        )
    )
    defense = QuantizedBroadcast(QuantizedBroadcast.Config(**config))
    facts = PublicFacts(
        backbone="minilm-l6",
        lora=LoraConfig(),
        head=HeadConfig(),
        training=TrainingConfig(),
        client_rows=(100, 100),
        max_length=32,
        label_names=("a", "b"),
        defenses=(DefenseFacts(defense.name, defense.config.model_dump(mode="json")),),
        full=full,
        travelling=full.only(*("B" if frozen_a else "AB")),
    )
    return Protocol(facts, [defense])


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("frozen_a", [False, True])
def test_a_broadcast_costs_its_codes_and_scales_and_next_to_nothing_else(frozen_a, bits):
    protocol = minilm_protocol(frozen_a=frozen_a, bits=bits, block_size=64)
    layout = protocol.facts.travelling
    sent = protocol.encode_broadcast(random_state(layout), round=0, seed=Seed(1))
    parameters = 18 * 8 * 384 * (1 if frozen_a else 2)
    assert layout.count == parameters
    expected = parameters * bits / 8 + 4 * parameters / 64
    assert expected < len(sent) < 1.01 * expected


def test_a_broadcast_is_decoded_block_by_block():
    protocol = minilm_protocol(frozen_a=True)
    state = random_state(protocol.facts.travelling)
    held = protocol.decode_broadcast(protocol.encode_broadcast(state, round=0, seed=Seed(1)), round=0)
    codec = BlockCodec("normal-float", 4, 64, "nearest", False)
    for spec in protocol.facts.travelling:
        flat = state[spec.name].flatten()
        alone = codec.decode(codec.encode([flat], rng=Seed(0).numpy()), lengths=[spec.count])[0]
        assert torch.equal(held[spec.name].flatten(), alone)


@pytest.mark.parametrize(("rule", "round", "expected"), [
    ("keep-residual", 0, 1.0 + 0.5 * 0.2),
    ("keep-residual", 3, 1.0 + 0.5 * 0.2),
    ("drop-residual", 0, 0.9 + 0.5 * 0.2),
    ("towards-clients", 0, 1.0 + 0.5 * (0.9 + 0.2 - 1.0)),
    ("towards-clients", 3, 1.0 + 0.5 * (0.9 + 0.2 - 1.0)),
    ("towards-clients-decayed", 0, 1.0 + 0.5 * (0.9 + 0.2 - 1.0)),
    ("towards-clients-decayed", 3, 1.0 + 0.25 * 0.5 * (0.9 + 0.2 - 1.0)),
])  # fmt: skip
def test_a_server_rule_is_its_formula(rule, round, expected):
    """The server is at 1, clients held 0.9 and came back 0.2 further; round 3 is the last of four."""
    defense = QuantizedBroadcast(QuantizedBroadcast.Config(server_rule=rule, server_lr=0.5))
    context = RoundContext(round=round, rounds=4, layout=Layout(()), facts={}, rng=Seed(0).numpy())
    states = ({"m.B": torch.tensor([value])} for value in (1.0, 0.9, 0.2))
    following = defense.update_server(*states, context)
    assert following["m.B"].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_the_rule_is_what_the_server_goes_by(tmp_path, rule):
    spec = system(("quantized-broadcast", {"bits": 2, "server_rule": rule, "server_lr": 0.5}))
    store, protocol = train(spec, tmp_path), protocol_of(spec)
    for round in range(ROUNDS):
        server, following = (store.secrets.server_adapter(r) for r in (round, round + 1))
        down, *up = [m for m in store.transcript.messages if m.round == round]
        held = protocol.decode_broadcast(store.transcript.data(down), round=round)
        updates = [protocol.decode_update(store.transcript.data(m), round=round, client=m.client) for m in up]
        decay = (ROUNDS - round) / ROUNDS if rule.endswith("decayed") else 1.0
        for name, value in server.items():
            mean = sum(u[name] for u in updates) / len(updates)
            naive = {
                "keep-residual": value + 0.5 * mean,
                "drop-residual": held[name] + 0.5 * mean,
            }.get(rule, value + decay * 0.5 * (held[name] + mean - value))
            torch.testing.assert_close(following[name], naive, rtol=1e-5, atol=1e-7)


def test_keeping_the_residual_lets_small_updates_add_up():
    """An update below half a quantization step moves the server only under the rule that keeps what was dropped."""
    protocol = minilm_protocol(frozen_a=True, bits=2, codebook="uniform-int")
    layout = protocol.facts.travelling
    small = {name: torch.full_like(v, 1e-3) for name, v in random_state(layout).items()}
    moved = {}
    for rule in ("keep-residual", "drop-residual"):
        defense = QuantizedBroadcast(QuantizedBroadcast.Config(bits=2, codebook="uniform-int", server_rule=rule))
        server = start = random_state(layout)
        for round in range(10):
            held = protocol.decode_broadcast(protocol.encode_broadcast(server, round=round, seed=Seed(1)), round=round)
            context = RoundContext(round=round, rounds=10, layout=layout, facts={}, rng=Seed(0).numpy())
            server = defense.update_server(server, held, small, context)
        moved[rule] = torch.cat([(server[n] - start[n]).flatten() for n in server])
    torch.testing.assert_close(moved["keep-residual"], torch.full_like(moved["keep-residual"], 0.01), rtol=0, atol=1e-6)
    assert moved["drop-residual"].std() > 0.01


def test_a_residual_is_what_quantization_dropped(tmp_path):
    spec = system(("quantized-broadcast", {"bits": 2}))
    store, protocol = train(spec, tmp_path), protocol_of(spec)
    last = store.transcript.messages[-1]
    server, held = store.secrets.server_adapter(ROUNDS), protocol.decode_broadcast(store.transcript.data(last), round=2)
    assert all(torch.equal(held[n], server[n]) == n.startswith("head.") for n in held)


@pytest.mark.parametrize(("codebook", "bits"), [("fp4", 8), ("dynamic", 4), ("uniform-int", 1)])
def test_a_codebook_is_refused_at_bits_it_does_not_have(codebook, bits):
    with pytest.raises(ValueError, match=codebook):
        QuantizedBroadcast.Config(codebook=codebook, bits=bits)
