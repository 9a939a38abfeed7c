"""A fleet's devices as values: their names, what they say about themselves, and questions about that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Self

__all__ = ["Condition", "FactsQuery", "GroupName", "ThingName", "check_facts"]

_THING = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
_FACT = re.compile(r"[a-zA-Z0-9._-]{1,64}")
# And halves of characters, which JSON can spell and UTF-8 cannot.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# Characters of a fact's value; an inventory that needs more belongs elsewhere.
_MAX_VALUE: Final = 256
# Facts that one device may state: a row each.
_MAX_FACTS: Final = 64
# Terms of a question: each is a look into an index.
_MAX_TERMS: Final = 16
_TERM = re.compile(r"(?P<fact>[a-zA-Z0-9._-]{1,64})(?:(?P<operator>!?=)(?P<values>.+))?")


class _Called(str):
    __slots__ = ()
    what: ClassVar[str]

    def __new__(cls, text: str) -> Self:
        """Check and keep it."""
        if not _THING.fullmatch(text):
            msg = f"{text[:140]!r} cannot name a {cls.what}: use 1 to 128 letters, digits, ':', '_' or '-'"
            raise ValueError(msg)
        return super().__new__(cls, text)


class ThingName(_Called):
    """A device's name: 1 to 128 of ``a-z A-Z 0-9 : _ -``. It is also a level of MQTT topics.

    Raises:
        ValueError: it is not.

    """

    __slots__ = ()
    what = "device"


class GroupName(_Called):
    """A group's name, of the same characters as a device's.

    Raises:
        ValueError: it is not one.

    """

    __slots__ = ()
    what = "group"


def check_facts(facts: Mapping[str, str]) -> Mapping[str, str]:
    """Give back facts that are few, short and named plainly.

    Raises:
        ValueError: they are not.

    """
    if len(facts) > _MAX_FACTS:
        msg = f"a device states at most {_MAX_FACTS} facts, not {len(facts)}"
        raise ValueError(msg)
    for name, value in facts.items():
        if not _FACT.fullmatch(name):
            msg = f"{name[:80]!r} cannot name a fact: use 1 to 64 letters, digits, '.', '_' or '-'"
            raise ValueError(msg)
        if not 1 <= len(value) <= _MAX_VALUE or _CONTROL.search(value):
            msg = f"the fact {name!r} is not 1 to {_MAX_VALUE} characters without control characters"
            raise ValueError(msg)
    return facts


@dataclass(frozen=True, slots=True)
class Condition:
    """One term: the fact has one of the values (any value where none are named), or with ``negated`` it has not."""

    fact: str
    values: frozenset[str] = frozenset()
    negated: bool = False

    def holds(self, facts: Mapping[str, str]) -> bool:
        """Whether it is so for these facts."""
        known = self.fact in facts
        found = facts[self.fact] in self.values if known and self.values else known
        return found is not self.negated


@dataclass(frozen=True, slots=True)
class FactsQuery:
    """A question about facts, all of whose terms must hold: ``model=rpi4|rpi5 region!=eu camera``.

    ``fact`` alone asks whether the device states it; ``!=`` also holds where it does not.

    Raises:
        ValueError: no term, or more than sixteen.

    """

    conditions: tuple[Condition, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.conditions) <= _MAX_TERMS:
            msg = f"a question about facts has 1 to {_MAX_TERMS} terms, not {len(self.conditions)}"
            raise ValueError(msg)

    @classmethod
    def parse(cls, text: str) -> FactsQuery:
        """Read it from text.

        Raises:
            ValueError: a term that cannot be read.

        """
        return cls(tuple(_parse_term(term) for term in text.split()))

    def __str__(self) -> str:
        return " ".join(map(_write_term, self.conditions))

    def holds(self, facts: Mapping[str, str]) -> bool:
        """Whether a device with these facts is meant."""
        return all(condition.holds(facts) for condition in self.conditions)


def _parse_term(term: str) -> Condition:
    read = _TERM.fullmatch(term)
    values = read["values"].split("|") if read and read["values"] else []
    if read is None or "" in values:
        msg = f"{term[:80]!r} is no question about a fact: write fact, fact=value, fact=one|other or fact!=value"
        raise ValueError(msg)
    return Condition(read["fact"], frozenset(values), negated=read["operator"] == "!=")


def _write_term(condition: Condition) -> str:
    values = sorted(condition.values)
    return f"{condition.fact}{'!=' if condition.negated else '='}{'|'.join(values)}" if values else condition.fact
