"""A defense that keeps what its checks were given, for the tests to look at."""

from typing import ClassVar

from qlorabench.federation.defense import Defense, DefenseConfig


class Keeper(Defense[DefenseConfig]):
    """Lets everything pass until told what to say."""

    name = "keeper"
    Config = DefenseConfig
    asked: ClassVar[list] = []
    says = staticmethod(lambda context: None)

    def accept(self, received, *, previous, start, context):
        type(self).asked.append((context.round, context.client, received, previous, start))
        return type(self).says(context)
