"""The routers there are, by ``router_flavor``."""

from __future__ import annotations

from .priority_router import PriorityRouter
from .router import Router
from .router_base import RouterBase
from .session_router import PrioritySessionRouter, SessionRouter, TraditionalSessionRouter

__all__ = ["FLAVORS", "empty_router", "empty_session_router"]

FLAVORS = ("traditional", "traditional_compatible", "expressions")


def empty_router(flavor: str) -> RouterBase:
    """A router without routes."""
    if flavor == "traditional":
        return Router.build()
    return PriorityRouter.build(protocols=flavor == "expressions")


def empty_session_router(flavor: str) -> SessionRouter:
    """A router of sessions without routes."""
    if flavor == "traditional":
        return TraditionalSessionRouter.empty()
    return PrioritySessionRouter.empty(protocols=flavor == "expressions")
