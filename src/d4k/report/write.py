"""The report: one folder that any browser opens from the disk, with no network.

REPORT/
  index.html  *.js  style.css          the page
  openseadragon.min.js  licences.txt   its viewer, and the licences of all that is shown
  data.js                              what the page shows, see `d4k.report.data`
  tiles/  thumbs/  heat/               pictures
  table.md  table.tex  scores.json  comparison.json  figures/    for papers and programs
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from d4k import __version__
from d4k.errors import ConfigError, DataError, OutputError, PluginError, UnknownNameError
from d4k.evaluation import Comparison, compare, read_votes
from d4k.files import atomic_folder, refuse_unwritable, write_text
from d4k.report import openseadragon, summary
from d4k.report.data import PREFIX, ComparisonData, LicenceData, ReportData, script
from d4k.report.patches import make_scorers
from d4k.report.pictures import Studio
from d4k.report.sources import Source, check_files, find_sources, pair, with_photographs

__all__ = ["DATA", "write_report"]

DATA = "data.js"
ASSETS = Path(__file__).parent / "assets"
MADE = {"tiles", "thumbs", "heat", "figures", DATA, "licences.txt", "table.md", "table.tex", "scores.json"}
MADE |= {"comparison.json", openseadragon.SCRIPT}
"""What a report holds beside the page."""
