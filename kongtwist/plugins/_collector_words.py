"""Why a collector could not be reached, in the words that Kong's sockets have for it, and in ours."""

from __future__ import annotations

__all__ = ["failure_words"]


def failure_words(error: Exception) -> str:
    """What is said of a request to a collector that has no answer.

    Args:
        error: as the HTTP client raises it.
    """
    text = str(error)
    if "refused" in text:
        return f"connection refused: {text}"
    if "within" in text or "timed out" in text or "took longer" in text:
        return f"timeout: {text}"
    return text
