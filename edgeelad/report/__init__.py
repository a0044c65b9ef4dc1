"""One self-contained HTML page that shows what a run did; made from the files of the run folder alone.

`write_report(run_folder)` writes `report.html` there: no scripts, no network, inline styles and charts.
"""

from edgeelad.report.page import write_report

__all__ = ["write_report"]
