"""Everything that scripts find beside Lua's own library, by dotted name."""

from __future__ import annotations

from typing import Any

from .json_functions import JSON_FUNCTIONS
from .ngx_log import Say, log_names
from .ngx_re import RE_FUNCTIONS
from .ngx_texts import TEXT_FUNCTIONS, TIME_FUNCTIONS
from .ngx_var import CONSTANTS, VARIABLES
from .pdk.pdk_functions import PDK_FUNCTIONS, PDK_VALUES
from .pdk.pdk_ngx import NGX_NAMES

__all__ = ["offered_names"]


def _get_phase(call: Any, *_: Any) -> str:
    return str(call.phase)


def offered_names(say: Say) -> dict[str, Any]:
    """All names, for an `kongtwist.lua.lua_engine.Engine`.

    Args:
        say: writes lines of scripts into the error log.
    """
    return {
        **CONSTANTS,
        **TEXT_FUNCTIONS,
        **TIME_FUNCTIONS,
        **RE_FUNCTIONS,
        **JSON_FUNCTIONS,
        **log_names(say),
        "ngx.var": VARIABLES,
        "ngx.get_phase": _get_phase,
        **PDK_FUNCTIONS,
        **PDK_VALUES,
        **NGX_NAMES,
    }
