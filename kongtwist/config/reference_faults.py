"""Sentences about values that came from references: they name the reference and never what it stands for.

Who points a property at the wrong variable of the environment would else find a password in the log.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from .properties import properties

__all__ = ["without_secrets"]

_UNMISTAKABLE = 8
"""Characters from which on a piece of a value is no word of ours by chance."""


def without_secrets(
    problems: Sequence[str], references: Mapping[str, str], texts: Mapping[str, str]
) -> tuple[str, ...]:
    """The same sentences without what references stand for.

    Args:
        problems: what is wrong; a sentence about one property begins with its name.
        references: property name -> text with references, of those that had some.
        texts: property name -> text with values in their place.
    """
    pieces = {name: _pieces(texts.get(name, ""), references[name]) for name in references}
    return tuple(_without(problem, references, pieces) for problem in problems)


def _pieces(text: str, written: str) -> list[str]:
    """What a sentence may quote of a value, longest first: not what is written in the configuration itself."""
    found = {text, *re.split(r"[\s,]+", text)}
    return sorted((each for each in found if each and each not in written), key=len, reverse=True)


def _without(problem: str, references: Mapping[str, str], pieces: Mapping[str, Sequence[str]]) -> str:
    name = re.split(r"[\s:]", problem, maxsplit=1)[0]
    rest = problem[len(name) :]
    if name in references and any(piece in rest for piece in pieces[name]):
        kind = properties()[name].kind.name
        return f"{name} refers to {references[name]}, whose value is none that it may have ({kind})"
    for other, written in references.items():
        for piece in pieces[other]:
            if len(piece) >= _UNMISTAKABLE:
                problem = problem.replace(piece, written)
    return problem
