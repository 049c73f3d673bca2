"""What crossed the wire, in order, and the public facts; secrets are kept in another folder.

::

    transcripts/<key>/public.json                 PublicFacts
    transcripts/<key>/index.jsonl                 one line a message
    transcripts/<key>/messages/00007.safetensors  its exact bytes
    secrets/<key>/server/0003.safetensors         the server's adapter before round 3
    secrets/<key>/rounds.jsonl                    which examples each client drew in a round
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from qlorabench.errors import DamagedError, UserError
from qlorabench.federation import wire
from qlorabench.federation.facts import PublicFacts
from qlorabench.federation.state import State
from qlorabench.files import append_lines, read_lines, write_atomic, write_json


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
            return PublicFacts.from_json(json.loads(path.read_text()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged("public.json", error) from error

    @cached_property
    def messages(self) -> tuple[Message, ...]:
        """Every message, in order."""
        try:
            return tuple(Message(**row) for row in read_lines(self.folder / "index.jsonl"))
        except (ValueError, TypeError) as error:
            raise self._damaged("index.jsonl", error) from error

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
        """Return the travelling tensors of the server before ``round`` (``rounds`` for the final ones)."""
        path = self.folder / "server" / f"{round:04d}.safetensors"
        try:
            return wire.from_bytes(path.read_bytes())
        except (OSError, UserError) as error:
            raise DamagedError(
                f"{path} is missing or damaged ({error}). Remove {self.folder} and run again."
            ) from error

    def batches(self, client: int) -> list[list[list[int]]]:
        """Return, for each round and step, the data-set rows that ``client`` trained on."""
        return [row["batches"][client] for row in read_lines(self.folder / "rounds.jsonl")]

    def zero_updates(self) -> list[tuple[int, int]]:
        """Return (round, client) of each update that is zero because training moved no weight."""
        rows = read_lines(self.folder / "rounds.jsonl")
        return [(row["round"], client) for row in rows for client in row.get("zero", ())]


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
        """Write the public facts, drop a half-written round, and return the first round to train."""
        write_json(self.transcript.folder / "public.json", facts.to_json())
        for folder in (self.transcript.folder, self.secrets.folder):
            for partial in folder.rglob(".*.part"):  # what a kill left of a file that was being written
                partial.unlink()
        done = self._reread().complete_rounds(facts.clients)
        self._cut(done)
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
        if round == 0:
            self._write_server(0, server)
        self._write_server(round + 1, following)
        append_lines(self.secrets.folder / "rounds.jsonl", [{"round": round, "batches": batches, "zero": zero}])
        self._write_messages(round, [(None, broadcast), *enumerate(updates)])

    def write_last(self, broadcast: bytes) -> None:
        """Write the broadcast of the final adapter, which ends the transcript."""
        rounds = self.transcript.facts.training.rounds
        self._write_messages(rounds, [(None, broadcast)])

    def _write_server(self, round: int, server: Mapping[str, Tensor]) -> None:
        write_atomic(self.secrets.folder / "server" / f"{round:04d}.safetensors", wire.to_bytes(server))

    def _write_messages(self, round: int, rows: Sequence[tuple[int | None, bytes]]) -> None:
        start = len(self._reread().messages)
        messages = [_message(start + i, round, client, data) for i, (client, data) in enumerate(rows)]
        for message, (_, data) in zip(messages, rows, strict=True):
            write_atomic(self.transcript.path_of(message.sequence), data)
        append_lines(self.transcript.folder / "index.jsonl", [asdict(m) for m in messages])

    def _reread(self) -> Transcript:
        return Transcript(self.transcript.folder)

    def _cut(self, rounds: int) -> None:
        _keep(self.transcript.folder / "index.jsonl", lambda row: row["round"] < rounds)
        _keep(self.secrets.folder / "rounds.jsonl", lambda row: row["round"] < rounds)


def _message(sequence: int, round: int, client: int | None, data: bytes) -> Message:
    direction: Literal["down", "up"] = "down" if client is None else "up"
    return Message(sequence, round, direction, client, len(data), hashlib.sha256(data).hexdigest())


def _keep(path: Path, wanted: Any) -> None:
    rows: Iterable[dict[str, Any]] = [row for row in read_lines(path) if wanted(row)]
    text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
    if path.exists():
        write_atomic(path, text.encode())
