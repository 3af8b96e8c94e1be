"""bot-detection: keep bots out by their User-Agent. Kong 3.9 `bot-detection`."""

from .detection import BotDetection

__all__ = ["BotDetection"]
