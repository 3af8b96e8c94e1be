"""The operator's own forms of the gateway's errors: the files that ``error_template_html`` and its like name."""

from __future__ import annotations

import re
from typing import Any

from .kinds import ConfError

__all__ = ["error_templates"]

_MOST = 1048576
"""Bytes of a template."""


def error_templates(conf: Any) -> dict[str, str]:
    """The templates that are configured, by form (``html``, ``json``, ``xml``, ``plain``). Each has ``%s`` for the message, a second
    one for the request's id, and ``%%`` for a percent sign.

    Args:
        conf: the configuration (`load.Conf`).

    Raises:
        ConfError: one cannot be read, or is none.
    """
    problems = []
    found = {}
    paths = {
        "html": conf.error_template_html,
        "json": conf.error_template_json,
        "xml": conf.error_template_xml,
        "plain": conf.error_template_plain,
    }
    for form, path in paths.items():
        name = f"error_template_{form}"
        if not path:
            continue
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read(_MOST + 1)
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            problems.append(f"{name} cannot read '{path}': {why}")
            continue
        signs = re.findall("%(.?)", text, re.DOTALL)
        if len(text) > _MOST:
            problems.append(f"{name} '{path}' has more than {_MOST} characters")
        elif set(signs) - {"s", "%"}:
            problems.append(
                f"{name} '{path}' has a percent sign that is neither %s nor %%; write %% for one that is shown"
            )
        elif signs.count("s") > 2:
            problems.append(
                f"{name} '{path}' has more than two %s: the first is the message, the second the request's id"
            )
        found[form] = text
    if problems:
        raise ConfError(*problems)
    return found
