"""What the HTTP server itself logs: a client that speaks no HTTP is worth one line, not an error with a traceback.

aiohttp reports both through one logger, and tells them apart by the exception only.
"""

from __future__ import annotations

import logging

from aiohttp.http_exceptions import HttpProcessingError

_LENGTH = 200


class _OneLine(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            # The message quotes what was sent: over several lines, with whatever bytes it has.
            text = " ".join(error.message.split()).encode("unicode_escape").decode()
            record.msg, record.args = "a client sent what is not HTTP: %s", (text[:_LENGTH],)
            record.exc_info = record.exc_text = None
            record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
        return True


def server_logger() -> logging.Logger:
    """The logger to give to aiohttp's server."""
    logger = logging.getLogger("podrt.http")
    if not any(isinstance(one, _OneLine) for one in logger.filters):
        logger.addFilter(_OneLine())
    return logger
