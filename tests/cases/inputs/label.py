from dataclasses import dataclass

import numpy as np

from qlorabench.threats.attack import Attack, AttackConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import Goal


@dataclass
class LabelClaim:
    labels: dict


class LabelConfig(AttackConfig):
    pass


class LabelInference(Attack[LabelConfig]):
    """iDLG: the sign of the head's bias gradient tells the labels of the batch."""

    name = "label-inference"
    goal = "labels"
    Config = LabelConfig
    requires = frozenset({Capability.OTHERS_UPDATES})

    def run(self, view, rng):
        return LabelClaim({u.client: np.sign(u.state["head.bias"].numpy()) for u in view.updates})


class LabelInference2(LabelInference):
    name = "label-inference-2"
    goal = Goal.MEMBERSHIP


class Raises(LabelInference2):
    name = "raises"

    def run(self, view, rng):
        print("HELLO from attack")
        raise RuntimeError("my bug\nsecond line " + "x" * 400)


class Exits(LabelInference2):
    name = "exits"

    def run(self, view, rng):
        import os

        os._exit(3)


class NotGranted(LabelInference2):
    name = "peeks"
    requires = frozenset({Capability.RELEASED_ADAPTER})

    def run(self, view, rng):
        return view.updates


class Aux(LabelInference2):
    name = "aux"
    requires = frozenset({Capability.AUXILIARY_DATA})


class NoName(Attack[LabelConfig]):
    goal = Goal.MEMBERSHIP
    Config = LabelConfig
    requires = frozenset()


class NoRequires(Attack[LabelConfig]):
    name = "norequires"
    goal = Goal.MEMBERSHIP
    Config = LabelConfig

    def run(self, view, rng):
        return None
