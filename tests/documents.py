"""What the documents say, taken apart: blocks of code, commands, spans of code, links.

How blocks are read:

- A fenced block says its language: ``sh`` is typed into a shell, ``js`` into a browser's console; ``python``, ``yaml``,
  ``ini``, ``json`` are files or pieces of them; ``text`` is output or a message, and is not run.
- Where the text before a block ends with the name of a file and a colon (```kong.yml`:``), the block is that file.
- A comment that is a number behind a curl command (``# 401``) is the status that it is answered with; without one the
  request must succeed.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = [
    "LANGUAGES",
    "PAGES",
    "ROOT",
    "Block",
    "blocks",
    "commands",
    "links",
    "page_text",
    "prose",
    "spans",
    "status_of",
]

ROOT = Path(__file__).resolve().parents[1]

LANGUAGES = frozenset({"sh", "html", "js", "python", "proto", "yaml", "ini", "json", "text"})

PAGES = tuple(
    str(path.relative_to(ROOT))
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").glob("*.md")),
        ROOT / "examples" / "README.md",
    )
)
"""Paths of the documents, from the root; the reference is made from declarations and has tests of its own."""

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```[ \t]*$", re.MULTILINE | re.DOTALL
)
_FILE = re.compile(r"`([^`\s]+\.[A-Za-z0-9]+)`:\s*\Z")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: path of the document.
        line: number of the block's first line.
        language: one of `LANGUAGES`.
        text: what stands in it, without the indentation of the fence.
        file: the name of the file that it is, or "".
        before: the paragraph before it.
        follows: whether nothing stands between it and the block before.
    """

    page: str
    line: int
    language: str
    text: str
    file: str
    before: str
    follows: bool

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.page}:{self.line}"


@cache
def page_text(page: str) -> str:
    """The text of a document."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> Iterator[Block]:
    """All blocks of a document, in order."""
    text, end = page_text(page), -1
    for found in _FENCE.finditer(text):
        indent = len(found["indent"])
        body = "".join(line[indent:] if line.strip() else line for line in found["body"].splitlines(keepends=True))
        before = text[: found.start()].rstrip().rpartition("\n\n")[2]
        named = _FILE.search(before)
        line = text.count("\n", 0, found.start()) + 2
        follows = end >= 0 and not text[end : found.start()].strip()
        end = found.end()
        yield Block(page, line, found["language"].strip(), body, named[1] if named else "", before, follows)


def prose(page: str) -> str:
    """A document without its blocks."""
    return _FENCE.sub("", page_text(page))


def spans(page: str) -> list[str]:
    """What stands between single backticks."""
    return [" ".join(each.split()) for each in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(page))]


def links(page: str) -> list[str]:
    """Targets of links."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def commands(block: Block) -> Iterator[str]:
    """The commands of an ``sh`` block, one by one; lines that go on, quotes and here-documents stay whole.

    Raises:
        AssertionError: the block ends within a command.
    """
    pending = ""
    for line in block.text.splitlines():
        pending += line + "\n"
        if line.endswith("\\") or not _complete(pending):
            continue
        if pending.strip() and not pending.lstrip().startswith("#"):
            yield pending.rstrip("\n")
        pending = ""
    assert not pending.strip(), f"{block.where}: the shell would wait for more: {pending}"


def _complete(text: str) -> bool:
    """Whether the shell would run this; an unfinished here-document is only warned of."""
    done = subprocess.run(["bash", "-n", "-c", text], capture_output=True, check=False)
    return done.returncode == 0 and not done.stderr


def status_of(command: str) -> int | None:
    """The status that a command says it is answered with."""
    found = re.search(r"\s#\s*([1-5][0-9][0-9])\b[^\n]*\Z", command)
    return int(found[1]) if found else None
