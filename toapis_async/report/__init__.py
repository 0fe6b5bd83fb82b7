"""`DIR/index.html`: a batch's pictures, what they took, and what failed, as one page that opens from disk."""

from toapis_async.report.page import write_report
from toapis_async.report.rows import ReportRow, RowError, RowStatus

__all__ = ["ReportRow", "RowError", "RowStatus", "write_report"]
