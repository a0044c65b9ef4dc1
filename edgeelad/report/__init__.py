"""The report: one self-contained HTML page, made from the files of a run folder.

`write_report(run_folder)` writes `report.html` there: no scripts, no network, inline styles and charts.
"""

from edgeelad.report.page import write_report

__all__ = ["write_report"]
