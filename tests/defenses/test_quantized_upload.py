import pytest
import torch

from qlorabench.defenses.quantized_upload import QuantizedUpload
from qlorabench.seeding import Seed

from ..federation.systems import protocol_of, random_state, system

TRIALS = 150


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_an_upload_is_unbiased(bits):
    protocol = protocol_of(system(("quantized-upload", {"bits": bits})))
    layout = protocol.facts.travelling.only("A", "B")
    update = random_state(protocol.facts.travelling, scale=1e-3)
    seeds = (Seed(4).child(i) for i in range(TRIALS))
    sent = (protocol.encode_update(update, round=0, client=0, seed=seed) for seed in seeds)
    got = torch.stack([layout.flatten(protocol.decode_update(data, round=0, client=0)) for data in sent])
    bias = (got.double() - layout.flatten(update).double()).mean(0)
    step = float(layout.flatten(update).abs().max()) / (2 ** (bits - 1) - 1)
    assert float(bias.abs().max()) < 5.5 * step / 2 / TRIALS**0.5


def test_the_mean_of_many_clients_is_nearer_than_one_upload():
    protocol = protocol_of(system(("quantized-upload", {"bits": 2})))
    layout = protocol.facts.travelling.only("A", "B")
    update = random_state(protocol.facts.travelling, scale=1e-3)
    sent = [protocol.encode_update(update, round=0, client=0, seed=Seed(4).child(i)) for i in range(64)]
    got = torch.stack([layout.flatten(protocol.decode_update(data, round=0, client=0)) for data in sent])
    error = lambda x: float((x - layout.flatten(update)).square().mean())  # noqa: E731
    assert 1 / 80 < error(got.mean(0)) / error(got[0]) < 1 / 50


def test_clients_toss_their_own_coins():
    protocol = protocol_of(system(("quantized-upload", {"bits": 2})))
    update = random_state(protocol.facts.travelling, scale=1e-3)
    one, other = (protocol.encode_update(update, round=0, client=0, seed=Seed(s)) for s in (1, 2))
    assert one != other
    assert len(one) == len(other)


def test_it_is_stochastic_and_uniform_unless_told_otherwise():
    config = QuantizedUpload.Config()
    assert (config.bits, config.codebook, config.rounding) == (8, "uniform-int", "stochastic")
