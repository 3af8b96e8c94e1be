"""Which questions are asked for a name, in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import idna

from .records import LAST

__all__ = ["plain_name", "questions"]


def plain_name(host: str) -> tuple[str, bool]:
    """A host name as servers know it, and whether it ends with a dot: nothing is added to such a name.

    Names in other scripts are encoded (UTS 46, RFC 5891).

    Raises:
        ValueError: no name can be like this; the text says why.
    """
    name = host.lower()
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except UnicodeError as error:  # idna.IDNAError is one
            raise ValueError(f"it is no internationalized name ({error})") from None
    whole = name.endswith(".")
    name = name[: -1 if whole else None]
    if not name:
        raise ValueError("it is empty")
    if len(name) > 253:
        raise ValueError("it is longer than 253 characters")
    for label in name.split("."):
        if not label:
            raise ValueError("a part of it is empty")
        if len(label) > 63:
            raise ValueError("a part of it is longer than 63 characters")
    if name == "invalid" or name.endswith(".invalid"):
        raise ValueError(".invalid is there for names that do not exist (RFC 6761)")
    if not all("!" <= letter <= "~" for letter in name):
        raise ValueError("it has blanks or control characters")
    return name, whole


def questions(
    name: str,
    whole: bool,
    order: Sequence[int],
    last: int | None,
    search: Sequence[str],
    ndots: int,
    given: Callable[[str, int], bool],
) -> Iterator[tuple[str, int]]:
    """The questions (name, kind) that are asked one behind the other until one has records, as Kong 3.9 does it.

    Kinds come in their order, each once; within a kind the name is asked as it is and with each search domain.

    Args:
        name: see `plain_name`.
        whole: nothing is added to it.
        order: of kinds (``dns_order``).
        last: kind it was found by last.
        search: domains.
        ndots: with fewer dots in it, domains come first.
        given: whether the hosts file has a name; that is asked for first.
    """
    done: set[int] = set()
    longer = () if whole else [f"{name}.{domain}" for domain in search if len(name) + len(domain) < 253]
    for each in order:
        kind = last if each == LAST else each
        if kind is None or kind in done:
            continue
        done.add(kind)
        if name.count(".") < ndots and not given(name, kind):
            names = [*longer, name]
        else:
            names = [name, *longer]
        for asked in names:
            yield asked, kind
