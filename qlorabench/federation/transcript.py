"""What crossed the wire, in order, and the public facts; secrets are kept in another folder.

::

    transcripts/<key>/public.json                 PublicFacts
    transcripts/<key>/index.jsonl                 one line a message
    transcripts/<key>/messages/00007.safetensors  its exact bytes
    secrets/<key>/server/0003.safetensors         the server's adapter before round 3
    secrets/<key>/rounds.jsonl                    which examples each client drew in a round

Every file is checked when it is read. JSON carries a seal (see `qlorabench.sealing`), the index has the SHA-256 of each
message, and each round that of the server's adapters around it. Lines are numbered, so that a lost one is missed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from qlorabench.errors import DamagedError, UserError
from qlorabench.federation import wire
from qlorabench.federation.facts import PublicFacts
from qlorabench.federation.state import State
from qlorabench.files import write_atomic, write_json
from qlorabench.sealing import append_sealed, read_sealed, read_sealed_lines, sealed, write_sealed_lines


@dataclass(frozen=True)
class Message:
    """One message as it stands in the index of a transcript."""

    sequence: int
    round: int
    direction: Literal["down", "up"]
    client: int | None
    """Sender of an update; ``None`` for a broadcast, which goes to every client."""
    bytes: int
    """Size of the container, header included."""
    sha256: str


@dataclass(frozen=True)
class Transcript:
    """The messages of one federation on disk."""

    folder: Path

    @cached_property
    def facts(self) -> PublicFacts:
        """The public parameters; raises UserError where the file is missing or damaged."""
        path = self.folder / "public.json"
        try:
            return PublicFacts.from_json(read_sealed(path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged("public.json", error) from error

    @cached_property
    def messages(self) -> tuple[Message, ...]:
        """Every message, in order; one whose line a kill cut short never was. Raises UserError where one is lost."""
        try:
            messages = tuple(Message(**row) for row in read_sealed_lines(self.folder / "index.jsonl", torn=True))
        except (OSError, ValueError, TypeError) as error:
            raise self._damaged("index.jsonl", error) from error
        if [message.sequence for message in messages] != list(range(len(messages))):
            raise self._damaged("index.jsonl", "lines are missing")
        return messages

    def select(self, direction: str, *, client: int | None = None) -> list[Message]:
        """Return the messages in ``direction``, of ``client`` alone where one is given."""
        return [m for m in self.messages if m.direction == direction and (client is None or m.client == client)]

    def data(self, message: Message) -> bytes:
        """Return the exact bytes of a message; raises UserError where they are not what was recorded."""
        path = self.path_of(message.sequence)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise self._damaged(path.name, error) from error
        if len(data) != message.bytes or hashlib.sha256(data).hexdigest() != message.sha256:
            raise self._damaged(path.name, f"{len(data)} bytes where {message.bytes} were recorded")
        return data

    def complete_rounds(self, clients: int) -> int:
        """Return how many rounds were written whole."""
        counts: dict[int, int] = {}
        for message in self.messages:
            counts[message.round] = counts.get(message.round, 0) + 1
        return sum(count == clients + 1 for count in counts.values())

    @property
    def finished(self) -> bool:
        """Whether the last broadcast was written."""
        return bool(self.messages) and self.messages[-1].round == self.facts.training.rounds

    def path_of(self, sequence: int) -> Path:
        """Return where the message with that number is kept."""
        return self.folder / "messages" / f"{sequence:05d}.safetensors"

    def _damaged(self, what: str, why: object) -> UserError:
        return DamagedError(
            f"transcript {self.folder} is damaged at {what}: {why}. "
            "Remove that folder (and its namesake under secrets/) and run the suite again; "
            "finished records are kept."
        )


@dataclass(frozen=True)
class Secrets:
    """What no adversary sees: the server's adapter in full precision, and who drew which examples."""

    folder: Path

    def server_adapter(self, round: int) -> State:
        """Return the travelling tensors of the server before ``round`` (``rounds`` for the final ones).

        Raises UserError where they are missing, or are not what was recorded.
        """
        path = self.path_of(round)
        adapters = {name: sha256 for row in self._rounds for name, sha256 in row["adapters"].items()}
        try:
            data = path.read_bytes()
        except OSError as error:
            raise self.damaged(path.name, error) from error
        if hashlib.sha256(data).hexdigest() != adapters.get(path.name):
            raise self.damaged(path.name, "it is not what was recorded")
        return wire.from_bytes(data)

    def batches(self, client: int) -> list[list[list[int]]]:
        """Return, for each round and step, the data-set rows that ``client`` trained on.

        Raises UserError where a round is missing or damaged.
        """
        rounds = self._rounds
        if not rounds or rounds[-1]["rounds_left"]:
            raise self.damaged("rounds.jsonl", "its last rounds are missing")
        return [row["batches"][client] for row in rounds]

    @cached_property
    def _rounds(self) -> list[dict[str, Any]]:
        return self.rounds()

    def rounds(self, *, torn: bool = False) -> list[dict[str, Any]]:
        """Return the lines of rounds.jsonl; ``torn`` is whether a kill may have cut the last one short.

        Raises UserError where a line is damaged, or lost between others.
        """
        try:
            rounds = read_sealed_lines(self.folder / "rounds.jsonl", torn=torn)
        except (OSError, ValueError) as error:
            raise self.damaged("rounds.jsonl", error) from error
        if [row["round"] for row in rounds] != list(range(len(rounds))):
            raise self.damaged("rounds.jsonl", "lines are missing")
        return rounds

    def path_of(self, round: int) -> Path:
        """Return where the server's adapter before ``round`` is kept."""
        return self.folder / "server" / f"{round:04d}.safetensors"

    def damaged(self, what: str, why: object) -> DamagedError:
        """Return the error that names a file, what is wrong with it, and how to mend it."""
        return DamagedError(
            f"{self.folder} is damaged at {what}: {why}. Remove that folder (and its namesake under transcripts/) and "
            "run the suite again; finished records are kept."
        )

    def zero_updates(self) -> list[tuple[int, int]]:
        """Return (round, client) of each update that is zero because training moved no weight."""
        return [(row["round"], client) for row in self._rounds for client in row["zero"]]


class FederationStore:
    """Writes a federation round by round: a round is on disk whole, or it never was."""

    def __init__(self, out: Path, key: str) -> None:
        self.transcript = Transcript(out / "transcripts" / key)
        self.secrets = Secrets(out / "secrets" / key)

    @property
    def finished(self) -> bool:
        """Whether the federation was trained to its end."""
        return (self.transcript.folder / "public.json").exists() and self._reread().finished

    def begin(self, facts: PublicFacts) -> int:
        """Write the public facts, drop a half-written round, and return the first round to train.

        Raises UserError where what is on the disk is damaged.
        """
        write_json(self.transcript.folder / "public.json", sealed(facts.to_json()))
        for folder in (self.transcript.folder, self.secrets.folder):
            for partial in folder.rglob(".*.part"):  # what a kill left of a file that was being written
                partial.unlink()
        transcript = self._reread()
        done = transcript.complete_rounds(facts.clients)
        _keep(transcript.folder / "index.jsonl", [asdict(m) for m in transcript.messages], done)
        rounds = self.secrets.rounds(torn=True)
        if len(rounds) < done:
            raise self.secrets.damaged("rounds.jsonl", f"{len(rounds)} rounds, where the transcript has {done}")
        _keep(self.secrets.folder / "rounds.jsonl", rounds, done)
        return done

    def broadcast(self, round: int) -> bytes:
        """Return the exact bytes of the broadcast of a round that is on disk."""
        transcript = self._reread()
        return transcript.data(next(message for message in transcript.select("down") if message.round == round))

    def write_round(
        self,
        round: int,
        *,
        server: Mapping[str, Tensor],
        following: Mapping[str, Tensor],
        broadcast: bytes,
        updates: Sequence[bytes],
        batches: Sequence[Sequence[Sequence[int]]],
        zero: Sequence[int] = (),
    ) -> None:
        """Write the messages and the secrets of a round; the lines of the index come last.

        ``zero`` names the clients whose training moved no weight.
        """
        adapters = {round: server, round + 1: following} if round == 0 else {round + 1: following}
        line = {
            "round": round,
            "rounds_left": self.transcript.facts.training.rounds - 1 - round,
            "adapters": {self.secrets.path_of(i).name: self._write_server(i, a) for i, a in adapters.items()},
            "batches": batches,
            "zero": list(zero),
        }
        append_sealed(self.secrets.folder / "rounds.jsonl", [line])
        self.secrets = Secrets(self.secrets.folder)  # one that has not read the file before
        self._write_messages(round, [(None, broadcast), *enumerate(updates)])

    def write_last(self, broadcast: bytes) -> None:
        """Write the broadcast of the final adapter, which ends the transcript."""
        rounds = self.transcript.facts.training.rounds
        self._write_messages(rounds, [(None, broadcast)])

    def _write_server(self, round: int, server: Mapping[str, Tensor]) -> str:
        """Write the server's adapter, and return its SHA-256."""
        data = wire.to_bytes(server)
        write_atomic(self.secrets.path_of(round), data)
        return hashlib.sha256(data).hexdigest()

    def _write_messages(self, round: int, rows: Sequence[tuple[int | None, bytes]]) -> None:
        start = len(self._reread().messages)
        messages = [_message(start + i, round, client, data) for i, (client, data) in enumerate(rows)]
        for message, (_, data) in zip(messages, rows, strict=True):
            write_atomic(self.transcript.path_of(message.sequence), data)
        append_sealed(self.transcript.folder / "index.jsonl", [asdict(m) for m in messages])

    def _reread(self) -> Transcript:
        return Transcript(self.transcript.folder)


def _message(sequence: int, round: int, client: int | None, data: bytes) -> Message:
    direction: Literal["down", "up"] = "down" if client is None else "up"
    return Message(sequence, round, direction, client, len(data), hashlib.sha256(data).hexdigest())


def _keep(path: Path, rows: Sequence[Mapping[str, Any]], rounds: int) -> None:
    """Leave those of ``rows`` in a file that are of the first ``rounds``."""
    if path.exists():
        write_sealed_lines(path, [row for row in rows if row["round"] < rounds])
