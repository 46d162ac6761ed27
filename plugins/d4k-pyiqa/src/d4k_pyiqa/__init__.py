"""The no-reference metrics of pyiqa for d4k, where pyiqa is installed.

pyiqa's licence is PolyForm Noncommercial, so d4k never installs it: whoever may use it installs it beside this plugin.
"""

from __future__ import annotations

from collections.abc import Callable

from d4k import hookimpl


@hookimpl
def register_metrics(register: Callable[..., None]) -> None:
    """Register eleven no-reference metrics; the licences of pyiqa and of its weights are non-commercial."""
    for name, cls, summary in (
        ("musiq", "Musiq", "multi-scale transformer, trained on KonIQ-10k"),
        ("maniqa", "Maniqa", "attention over vision transformer features, KonIQ-10k"),
        ("topiq-nr", "TopiqNR", "semantics to distortions, KonIQ-10k"),
        ("liqe", "Liqe", "CLIP asked about quality, scenes and distortions"),
        ("clipiqa", "ClipIQA", "CLIP asked whether a photo is good or bad"),
        ("qalign", "QAlign", "a large vision-language model asked for its rating"),
        ("hyperiqa", "HyperIQA", "a hyper-network that adapts to the content"),
        ("dbcnn", "DBCNN", "two convolutional networks, bilinearly pooled"),
        ("niqe", "Niqe", "distance to the statistics of natural pictures"),
        ("ilniqe", "IlNiqe", "NIQE with more features, patch by patch"),
        ("brisque", "Brisque", "statistics of natural pictures, regressed"),
    ):
        register(f"pyiqa-{name}", f"d4k_pyiqa.metrics:{cls}", summary=f"{summary}; needs pyiqa (non-commercial)")
