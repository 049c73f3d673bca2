"""The clients of a malicious server, which sends them what it likes; the server gets their replies and nothing else.

The clients hold texts, so an attack must not be able to reach them: they live in a thread of their own, on a copy
of the model, and the attack holds the ends of two queues.
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from qlorabench.errors import UserError
from qlorabench.federation import wire
from qlorabench.federation.client import BroadcastRefused, contribute
from qlorabench.federation.model import AdapterModel
from qlorabench.federation.protocol import Protocol
from qlorabench.federation.state import State
from qlorabench.seeding import Seed
from qlorabench.tasks.task import PreparedTask
from qlorabench.threats.view import Broadcast, Exchange, Update


@dataclass
class CraftedRun:
    """A run of the federation that a malicious server has instead of the honest one. Held by the harness alone.

    To its clients it is a federation like any other: each counts its rounds from 0, remembers the last broadcast,
    checks what it gets, trains on batches of its own drawing, and is gone after the public number of rounds.
    """

    model: AdapterModel
    protocol: Protocol
    task: PreparedTask
    start: State
    """Public start of every tensor."""
    seed: Seed
    """Its coins; batches follow its root alone, so that systems are compared on the same ones."""
    drawn: dict[int, set[int]] = field(default_factory=dict)
    """Secret: the rows of the data set that each client trained on."""
    requests: int = 0
    """Broadcasts sent."""
    _heard: dict[int, list[bytes]] = field(default_factory=dict)
    """What each client accepted, in order. A broadcast that was refused costs its round and is forgotten."""
    _rounds: dict[int, int] = field(default_factory=dict)

    def open(self) -> QueuedClients:
        """Return the server's end; the clients are served until it is dropped."""
        self.model = _copy(self.model)
        requests: SimpleQueue[Any] = SimpleQueue()
        replies: SimpleQueue[Any] = SimpleQueue()
        threading.Thread(target=_serve, args=(self.answer, requests, replies), daemon=True).start()
        clients = QueuedClients(self.protocol.facts.training.rounds, requests, replies)
        weakref.finalize(clients, requests.put, None)
        return clients

    def answer(self, state: State, client: int) -> Exchange:
        """Return the message that ``state`` becomes, and what ``client`` replies to it."""
        round = self._rounds.get(client, 0)
        self._check(state, client, round)
        self._rounds[client] = round + 1
        self.requests += 1
        data = self.protocol.encode_broadcast(
            state, round=round, seed=self.seed.child("round", round, "server", client)
        )
        held = self.protocol.decode_broadcast(data, round=round)
        return Exchange(Broadcast(round, data, wire.from_bytes(data), held), self._update(data, client, round))

    def _update(self, data: bytes, client: int, round: int) -> Update | None:
        heard = self._heard.setdefault(client, [])
        try:
            made = contribute(
                self.model,
                self.protocol,
                self.task.client(client),
                data,
                previous=heard[-1] if heard else None,
                start=self.start,
                client=client,
                round=round,
                seed=self.seed.child("round", round, "client", client),
                draws=Seed(self.seed.root, ("batches", "crafted", str(round), str(client))),
            )
        except BroadcastRefused:
            return None
        heard.append(data)
        rows = self.task.client_rows[client]
        self.drawn.setdefault(client, set()).update(int(rows[i]) for step in made.batches for i in step)
        return Update(
            round, client, made.message, self.protocol.decode_update(made.message, round=round, client=client)
        )

    def _check(self, state: State, client: int, round: int) -> None:
        facts = self.protocol.facts
        if client not in range(facts.clients):
            raise ValueError(f"client {client} of {facts.clients}")
        if round >= facts.training.rounds:
            raise ValueError(f"client {client} is gone after the {facts.training.rounds} rounds of the federation")
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        if shapes != {spec.name: spec.shape for spec in facts.travelling}:
            raise ValueError("a broadcast holds the tensors that travel, in their shapes, and no other")


@dataclass(frozen=True, eq=False)
class QueuedClients:
    """The server's end of a crafted run; see `qlorabench.threats.view.Crafter`."""

    rounds: int
    _requests: SimpleQueue[Any]
    _replies: SimpleQueue[Any]

    def send(self, state: State, *, client: int) -> Exchange:
        """Send ``state`` to ``client`` and return the message with the reply."""
        self._requests.put(({name: value.detach().clone() for name, value in state.items()}, client))
        kind, value = self._replies.get()
        if kind == "ok":
            return value  # type: ignore[no-any-return]
        raise UserError(value) if kind == "user" else RuntimeError(value)


def _serve(answer: Callable[[State, int], Exchange], requests: SimpleQueue[Any], replies: SimpleQueue[Any]) -> None:
    """Answer until ``None`` comes. Of an error the text alone goes back: its traceback leads to the clients."""
    while (request := requests.get()) is not None:
        try:
            replies.put(("ok", answer(*request)))
        except UserError as error:
            replies.put(("user", str(error)))
        except Exception as error:  # noqa: BLE001 - raised anew at the other end
            replies.put(("failed", f"{type(error).__name__}: {error}"))
        request = None


def _copy(model: AdapterModel) -> AdapterModel:
    """Return a copy with layers and an adapter of its own over the same frozen weights.

    What an attack hangs on the model in its lab sees nothing of it, and it leaves nothing in that model.
    """
    own = {id(parameter) for _, parameter in model.train_only(model.layout)}
    tensors = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, {id(t): t for t in tensors if id(t) not in own})
