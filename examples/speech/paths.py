# Where corpora and models are kept: the user's cache folder, never the source tree.

import os
from pathlib import Path


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlx-ctc"


def models_folder() -> Path:
    return cache_folder() / "models"


def latest_model() -> Path:
    """The folder of the model saved last. Raises a ``ValueError`` if there is none."""
    saved = models_folder().glob("*/recogniser.json")
    latest = max(saved, key=lambda path: path.stat().st_mtime, default=None)
    if latest is None:
        raise ValueError(
            f"There is no model in {models_folder()} yet: main.py trains one."
        )
    return latest.parent
