"""The logger of the whole package; silent unless the application configures logging."""

import logging

logger = logging.getLogger("toapis_async")
logger.addHandler(logging.NullHandler())
