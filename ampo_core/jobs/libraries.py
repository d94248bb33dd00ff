"""Settings of the libraries beneath, made once before any of them is imported by a job."""

from __future__ import annotations

import logging
import os
import warnings


def settle_libraries() -> None:
    """Let waiting threads sleep soon, and keep DeepSpeed and transformers from filling the screen."""
    # Read when torch is loaded. Threads that spin for long while they wait slow each other down where cores are
    # shared: an update of the quickstart took 4 s beside another run, with this 1 s, and 0.15 s either way when idle.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    import torch

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # DeepSpeed calls functions of torch.distributed that have newer names, several times a step.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d_logger")
    for name in ("DeepSpeed", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
