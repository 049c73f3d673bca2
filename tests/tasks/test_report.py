"""What a user reads of the rows that were read, left out and dealt."""

from typing import Any

import pytest

from qlorabench.tasks.report import DataReport, TokenReport


def report_of(**tokens: Any) -> list[str]:
    values = {"max_length": 8, "blank": 0, "alike": 0, "conflicting": 0, "unknown": 0.0, "cut": 0.0} | tokens
    return DataReport("x", read=1000, tokens=TokenReport(**values)).lines()


ALIKE = (
    "997 of 1,000 rows are used; left out: 3 that the model cannot tell from another (the same token ids, of which 8 "
    "are kept), 2 of them with another label than the one that stays"
)
MUCH_UNKNOWN = "what is measured says little about such texts: is the backbone made for their language?"
MUCH_CUT = "most texts are known by their beginning alone: a larger data.max_length keeps more"


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ({"unknown": 0.2}, "20 % of the tokens are [UNK]"),
        ({"unknown": 0.21}, f"21 % of the tokens are [UNK]; {MUCH_UNKNOWN}"),
        ({"cut": 0.004}, "less than 1 % of the texts are cut to 8 tokens"),
        ({"cut": 0.6}, f"60 % of the texts are cut to 8 tokens; {MUCH_CUT}"),
        ({"alike": 3, "conflicting": 2}, ALIKE),
    ],
)
def test_what_a_user_reads(tokens: dict, said: str) -> None:
    assert report_of(**tokens) == [said]


def test_what_is_said_of_seeds_and_clients_stays_short() -> None:
    got = dict.fromkeys(range(50), (5,) * 100)
    lines = DataReport("x", asked=(30,) * 100, got=got).lines()
    assert len(lines) == 9
    assert lines[-1] == "and 42 more such lines, on other seeds"
    assert lines[0].endswith("client 7 has 5 of 30 and 92 more")
