"""Secrets behind a prompt: a beam search over all of them, and scores of some, under one rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from qlorabench.threats.claims import ExtractionClaim
from qlorabench.threats.lab import Lab
from qlorabench.threats.view import SecretPrompt

from ._continuations import Context, Continuations, Symbols, by_tree, continuations_for

Rule = Callable[[np.ndarray], np.ndarray]
"""Maps log-probabilities (snapshots, strings, symbols) to a score of each string, higher is likelier."""


@dataclass
class Listener:
    """What some snapshots of an adapter say behind one prompt, each continuation computed once."""

    lab: Lab
    snapshots: Sequence[Mapping[str, Tensor]]
    """Adapters, the earliest first."""
    context: Context
    compute: Continuations
    known: dict[Symbols, np.ndarray] = field(default_factory=dict)
    """String -> log-probabilities of the symbol after it, (snapshots, alphabet)."""

    def hear(self, strings: Sequence[Symbols]) -> None:
        """Compute what follows each of ``strings``."""
        missing = sorted(set(strings) - set(self.known))
        if missing:
            found = np.stack([self._ask(snapshot, missing) for snapshot in self.snapshots])
            self.known |= dict(zip(missing, found.transpose(1, 0, 2), strict=True))

    def _ask(self, snapshot: Mapping[str, Tensor], strings: Sequence[Symbols]) -> np.ndarray:
        """Return what follows each of ``strings``, (strings, alphabet); seats and attacks ask much alike."""
        question = f"{self.compute.__name__} {self.context} {list(strings)}".encode()
        rows = 1 if self.compute is by_tree else len(strings)
        answer = self.lab.recall(
            snapshot, question, lambda full: self.compute(self.lab.mount(full), self.context, strings), rows=rows
        )
        return answer.reshape(len(strings), -1)

    def log_probabilities(self, strings: Sequence[Symbols]) -> np.ndarray:
        """Return the log-probability of each symbol of ``strings`` of one length, (snapshots, strings, symbols)."""
        self.hear([string[:end] for string in strings for end in range(len(string))])
        rows = [[self.known[string[:end]][:, symbol] for end, symbol in enumerate(string)] for string in strings]
        return np.array(rows).transpose(2, 0, 1)


def search(listener: Listener, *, symbols: int, length: int, width: int, rule: Rule) -> list[Symbols]:
    """Return the best strings of ``length`` that a beam of ``width`` prefixes finds under ``rule``, best first."""
    beam: list[Symbols] = [()]
    for _ in range(length):
        longer = [(*prefix, symbol) for prefix in beam for symbol in range(symbols)]
        scores = rule(listener.log_probabilities(longer))
        beam = [longer[i] for i in np.argsort(-scores, kind="stable")[:width]]
    return beam


@dataclass(frozen=True)
class Reading:
    """How secrets are looked for and ranked."""

    search: Rule
    """What the beam maximizes."""
    rank: Rule
    """What orders the strings that were found, and scores the references."""
    width: int
    """Prefixes that the beam keeps."""


def read_secrets(
    lab: Lab, prompts: Sequence[SecretPrompt], snapshots: Sequence[Mapping[str, Tensor]], how: Reading, *, note: str
) -> ExtractionClaim:
    """Return the claim about ``prompts`` from what ``snapshots`` of an adapter say behind them."""
    if not prompts:
        return ExtractionClaim((), np.empty((0, 0)), note="no prompts are asked about")
    contexts = [Context.of(lab.tokenizer, prompt) for prompt in prompts]
    compute = continuations_for(lab.mount(snapshots[-1]), contexts[0])
    read = [
        _read(Listener(lab, snapshots, context, compute), prompt, how)
        for prompt, context in zip(prompts, contexts, strict=True)
    ]
    return ExtractionClaim(tuple(guesses for guesses, _ in read), np.array([scores for _, scores in read]), note=note)


def _read(listener: Listener, prompt: SecretPrompt, how: Reading) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the guesses, best first, and the score of each reference."""
    spelled = [_spell(text, prompt) for text in prompt.references]
    references = how.rank(listener.log_probabilities(spelled))  # first: they take in most prefixes of any search
    found = search(listener, symbols=len(prompt.alphabet), length=prompt.length, width=how.width, rule=how.search)
    order = np.argsort(-how.rank(listener.log_probabilities(found)), kind="stable")
    guesses = tuple("".join(prompt.alphabet[s] for s in found[i]) for i in order)
    return guesses, references


def _spell(text: str, prompt: SecretPrompt) -> Symbols:
    """Return the symbols that ``text`` is written with."""
    width = len(text) // prompt.length
    return tuple(prompt.alphabet.index(text[i : i + width]) for i in range(0, len(text), width))
