"""Write ``conf/kongtwist.conf.default`` from the declarations: ``python -m kongtwist.config.default_file > FILE``."""

from __future__ import annotations

import sys
import textwrap

from .kinds import Property
from .properties import SECTIONS, declared
from .unbuilt_properties import Unbuilt

__all__ = ["document"]

_HEAD = """\
The configuration of a kongtwist node, with every property that has an effect and its default.
Made from the program's declarations; this file itself is never read. Copy what you change to
/etc/kongtwist/kongtwist.conf, or to any file named with --conf.

The syntax is kong.conf's: lines 'name = value'; '#' starts a comment, '\\#' is a number sign; an empty value unsets a
property. Of --conf FILE, /etc/kongtwist/kongtwist.conf and /etc/kong/kong.conf the first that is there is read, alone.
The environment is stronger than the file: KONG_ and the name in capitals, such as KONG_PROXY_LISTEN. A value
'{vault://env/NAME}' is that environment variable's.

Lists are separated by commas. Sizes are bytes, or with k, m, g. Times are seconds, or with ms, s, m, h, d.
"""


def document() -> str:
    """The text of the file."""
    parts = [_comment(_HEAD)]
    for section in SECTIONS:
        parts.append(_heading(section))
        parts.extend(_entry(name, each) for name, each in declared(section).items())
    parts.append(_heading(Unbuilt))
    idle = {name: each for name, each in declared(Unbuilt).items() if each.why}
    unbuilt = ", ".join(name for name in declared(Unbuilt) if name not in idle)
    parts.append(_comment("Not built yet; setting one of these gives a warning and changes nothing:", unbuilt))
    reasons: dict[str, list[str]] = {}
    for name, each in idle.items():
        reasons.setdefault(each.why, []).append(name)
    parts.append(_comment("Without a meaning here; setting one of these gives a warning that says why:"))
    parts.append("".join(_comment(f"{', '.join(names)}: {why}.") for why, names in reasons.items()))
    return "\n".join(parts)


def _heading(section: type) -> str:
    title = (section.__doc__ or "").partition("\n")[0].rstrip(".")
    return f"#{'-' * 119}\n# {title}\n#{'-' * 119}\n"


def _entry(name: str, declaration: Property[object]) -> str:
    facts = [f"Value: {declaration.kind.name}."]
    if declaration.aliases:
        facts.append(f"Other names: {', '.join(declaration.aliases)}.")
    if declaration.restart is not None:
        facts.append(f"Takes effect at a restart, because {declaration.restart}.")
    refused = [
        f"Refused: {value}, as {why}." for value, why in declaration.refused.items() if value not in ("*", "true")
    ]
    line = f"#{name} ={' ' + declaration.default if declaration.default else ''}\n"
    return line + _comment(declaration.text, " ".join(facts), *refused)


def _comment(*texts: str) -> str:
    lines = [
        line
        for text in texts
        for paragraph in text.rstrip().split("\n\n")
        for line in (*textwrap.wrap(" ".join(paragraph.split()), 114, break_on_hyphens=False), None)
        if line is not None or len(text.split("\n\n")) > 1
    ]
    return "".join(f"# {line}\n" if line else "#\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(document())
