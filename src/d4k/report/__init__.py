"""Pictures and scores as one folder of pages that any browser opens from the disk."""

from d4k.report.write import write_report

__all__ = ["write_report"]
