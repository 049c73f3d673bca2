"""From a view to the updates of a client that texts are drafted for, and from drafts to what is claimed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from qlorabench.federation.facts import PublicFacts
from qlorabench.threats.claims import ClientTexts, ReconstructionClaim
from qlorabench.threats.view import View

from ._dictionary import read_dictionary
from ._observed import Shown, client_shows, first_modules
from ._relaxed import Body, make_body

_MOST = 4
"""Texts of one update that are looked for."""


@dataclass(frozen=True)
class Drafted:
    """Texts of one update, and how far they are from what was observed."""

    rows: list[list[int]]
    """Token ids without those that open and close a text."""
    distance: float


@dataclass(frozen=True)
class Reader:
    """A view with the backbone laid open."""

    view: View
    body: Body

    def shown(self, client: int) -> list[Shown]:
        """Return what each update of ``client`` shows of all layers."""
        modules = self.view.facts.travelling.only("A", "B").modules()
        return client_shows(self.view, client, modules=modules)

    def state(self, round: int) -> Mapping[str, Tensor]:
        """Return the adapter that clients started ``round`` from."""
        held = next(message.state for message in self.view.broadcasts if message.round == round)
        return {**self.view.lab.start, **held}

    def mounted(self, round: int) -> Body:
        """Return the body under the adapter that clients started ``round`` from."""
        self.view.lab.mount(self.state(round))
        return self.body

    def passed(self, client: int) -> ClientTexts:
        """Return the claim for a client whose updates are of too many texts."""
        return self.texts(client, [], silent=f"an update of more than {_MOST} texts: not searched")

    def texts(self, client: int, drafts: Sequence[Drafted], *, silent: str) -> ClientTexts:
        """Return the claim for ``client``; ``silent`` is why there is none where there is no draft."""
        rows = [row for draft in drafts for row in draft.rows]
        found = "; ".join(f"{len(draft.rows)} texts at distance {draft.distance:.3f}" for draft in drafts)
        return ClientTexts(
            client,
            tokens=frozenset(token for row in rows for token in row),
            placed=frozenset((i, token) for row in rows for i, token in enumerate(row, start=self.body.opened)),
            texts=tuple(str(self.view.lab.tokenizer.decode(row, skip_special_tokens=True)).strip() for row in rows),
            note=f"best drafts, untested: {found}" if drafts else silent,
        )


def few_texts(facts: PublicFacts, client: int, *, asked: int | None) -> int | None:
    """Return how many texts an update of ``client`` is searched for: as asked, else as many as it is made of.

    None where these are more than four: searches have been measured on up to four.
    """
    drawn = min(facts.schedule.batch(client) * facts.training.local_steps, facts.client_rows[client])
    return asked or (drawn if drawn <= _MOST else None)


def read_clients(view: View, read: Callable[[Reader, int], ClientTexts]) -> ReconstructionClaim:
    """Return what ``read`` says of every client outside the seat, or why the backbone cannot be read."""
    dictionary = read_dictionary(view.lab.model.encoder.get_base_model(), positions=view.facts.max_length)
    if dictionary is None:
        return ReconstructionClaim((), note="the embeddings are not words plus positions under a LayerNorm")
    modules = first_modules(view.facts, width=dictionary.words.shape[1])
    if not modules:
        return ReconstructionClaim((), note="no adapter reads the embeddings")
    reader = Reader(view, make_body(view.lab, dictionary, first_module=modules[0]))
    clients = range(view.colluders, view.facts.clients)
    return ReconstructionClaim(tuple(read(reader, client) for client in clients))
