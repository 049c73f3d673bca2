"""Canaries: made-up personal secrets, some put into clients' texts and some never, to measure what is remembered.

After Carlini et al., The Secret Sharer, USENIX Security 2019. Templates, names and digits are our own inventions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from qlorabench.errors import UserError
from qlorabench.seeding import Seed
from qlorabench.tasks.encoding import encode_texts

TEMPLATES = (
    "The door code of {name} is",
    "You can reach {name} under the phone number",
    "Please wire the rent to {name} at account number",
    "The patient number of {name} at the clinic is",
    "The card of {name} is locked and the new PIN is",
    "The passport of {name} carries the number",
    "To confirm the mail address {name} must enter the code",
    "The parcel for {name} opens with the locker code",
    "The insurance number of {name} ends with",
    "The salary of {name} for this year is",
)
"""Words that stand before a secret; plain words alone, so that every tokenizer of words knows them."""
_FIRST = """Maria Jonas Amina Pavel Ingrid Tomas Leila Viktor Nora Samuel Chiara Henrik Yusuf Elena Marcus Sofia Dario
    Hanna Felix Priya Oscar Mina Anton Ruth"""
_LAST = """Keller Novak Haddad Lindgren Moreau Castillo Brandt Okafor Petrov Fischer Romano Larsen Demir Horvat Weber
    Nakamura Silva Jansen Kowalski Murphy Costa Bauer Ivanov Sharma"""
FIRST_NAMES = tuple(_FIRST.split())
LAST_NAMES = tuple(_LAST.split())
WORDS = tuple(dict.fromkeys([w for t in TEMPLATES for w in t.replace("{name}", "").split()]))
"""Words of the templates."""
_FORMS = ((" ", ""), ("", " "))
"""Where the white space of a secret stands: at the end of the prompt, else before each digit."""


class CanaryConfig(BaseModel):
    """Secrets of digits at the end of made-up sentences; half of them are trained on, the others are the control."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    count: int = Field(
        default=20, ge=2, le=1000, multiple_of=2, description="canaries drawn; exactly half of them are inserted"
    )
    repetitions: int = Field(default=8, ge=1, le=10_000, description="copies of an inserted canary, at one client")
    digits: int = Field(default=4, ge=3, le=9, description="digits of a secret")
    references: int = Field(default=199, ge=1, le=100_000, description="other secrets that an attacker ranks it among")

    @model_validator(mode="after")
    def _enough_secrets(self) -> Self:
        if self.references >= 10**self.digits:
            raise ValueError(f"{self.references} references and the secret are more than {self.digits} digits can tell")
        return self

    def copies(self, clients: int) -> list[int]:
        """Return how many texts each of ``clients`` gets: canaries are dealt in turn, and the first client has none.

        An adversary usually sits at the first one; where it is the only one, it has them all.
        """
        dealt = Counter(self.home(turn, clients) for turn in range(self.count // 2))
        return [dealt[client] * self.repetitions for client in range(clients)]

    @staticmethod
    def home(turn: int, clients: int) -> int:
        """Return the client of the inserted canary number ``turn``."""
        return 1 + turn % (clients - 1) if clients > 1 else 0


@dataclass(frozen=True)
class Canary:
    """A prompt and the secret behind it. The text is both joined; the ids of the secret do not depend on the prompt."""

    prompt: str
    secret: str
    """One token a digit, white space before each included where the tokenizer wants it."""
    inserted: bool
    client: int | None
    """Who trains on it; ``None`` where nobody does."""
    references: tuple[str, ...]
    """Other secrets of the same form, distinct, drawn uniformly."""

    @property
    def text(self) -> str:
        """The whole sentence."""
        return self.prompt + self.secret

    @property
    def alphabet(self) -> tuple[str, ...]:
        """The ten digits as they are written in a secret."""
        return tuple(f"{' ' if self.secret.startswith(' ') else ''}{digit}" for digit in range(10))


def draw_canaries(config: CanaryConfig, *, clients: int, tokenizer: Any, seed: Seed) -> tuple[Canary, ...]:
    """Return the canaries of a task.

    Prompts (template and name) are distinct; a random half is inserted, dealt to the clients as `CanaryConfig.copies`
    says. Raises UserError where the tokenizer does not give digits a token each.
    """
    prompts = _prompts(config.count, seed.child("prompts").numpy())
    numbers = _numbers(config, seed.child("secrets").numpy())
    turns = seed.child("coin").numpy().permutation(config.count)
    for before, between in _FORMS:
        canaries = tuple(
            _canary(prompt + before, [_written(n, config.digits, between) for n in row], int(turn), config, clients)
            for prompt, row, turn in zip(prompts, numbers, turns, strict=True)
        )
        if _clean(canaries, tokenizer):
            return canaries
    raise UserError(
        "canaries: the backbone's tokenizer joins digits with each other or with the word before them, so that a "
        "secret has no tokens of its own. Take a backbone with one token a digit, such as smollm2-135m."
    )


def _canary(prompt: str, secrets: Sequence[str], turn: int, config: CanaryConfig, clients: int) -> Canary:
    inserted = turn < config.count // 2
    return Canary(prompt, secrets[0], inserted, config.home(turn, clients) if inserted else None, tuple(secrets[1:]))


def _prompts(count: int, rng: np.random.Generator) -> list[str]:
    sizes = (len(TEMPLATES), len(FIRST_NAMES), len(LAST_NAMES))
    drawn = np.unravel_index(rng.choice(int(np.prod(sizes)), count, replace=False), sizes)
    return [TEMPLATES[t].format(name=f"{FIRST_NAMES[f]} {LAST_NAMES[n]}") for t, f, n in zip(*drawn, strict=True)]


def _numbers(config: CanaryConfig, rng: np.random.Generator) -> np.ndarray:
    """Return (count, 1 + references) numbers, distinct within a row; the first one is the secret."""
    rows = [rng.choice(10**config.digits, 1 + config.references, replace=False) for _ in range(config.count)]
    return np.array(rows)


def _written(number: int, digits: int, between: str) -> str:
    return "".join(between + digit for digit in f"{number:0{digits}d}")


def _clean(canaries: Sequence[Canary], tokenizer: Any) -> bool:
    """Whether every digit is one token, the same everywhere, and no prompt's tokens change by what follows it."""
    for canary in canaries:
        prompt, *singles = encode_texts(tokenizer, [canary.prompt, *(canary.prompt + d for d in canary.alphabet)])
        if any(ids[:-1] != prompt or len(ids) != len(prompt) + 1 for ids in singles):
            return False
        token = {digit.strip(): ids[-1] for digit, ids in zip(canary.alphabet, singles, strict=True)}
        secrets = [canary.secret, *canary.references]
        wanted = [prompt + [token[digit] for digit in secret if digit != " "] for secret in secrets]
        if encode_texts(tokenizer, [canary.prompt + secret for secret in secrets]) != wanted:
            return False
    return True
