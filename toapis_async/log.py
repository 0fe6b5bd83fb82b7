"""The logger of the whole package; silent unless the application configures logging. No line of it shows a key."""

import logging

from toapis_async.scrub import scrub

logger: logging.Logger = logging.getLogger("toapis_async")
logger.addHandler(logging.NullHandler())


def _scrub_record(record: logging.LogRecord) -> bool:
    record.msg, record.args = scrub(record.getMessage()), None
    return True


logger.addFilter(_scrub_record)
