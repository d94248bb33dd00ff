"""Settings of the libraries beneath, made once before any of them is imported by a job."""

from __future__ import annotations

import logging
import os


def settle_libraries() -> None:
    """Let waiting threads sleep, and keep DeepSpeed and transformers from filling the screen."""
    # Read when torch is loaded. Threads that spin while they wait slow each other down wherever cores are shared:
    # an update of the quickstart took 4 s instead of 0.2 s beside another run.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    for name in ("DeepSpeed", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
