"""Checks that the installed MLX is the version that this package was built for.

The extension uses MLX's C++ types, whose layout differs between versions. This module
is therefore imported before the extension. Its errors name the command to run.
"""

import sys

from mlx_ctc._build import MLX_VERSION
from mlx_ctc._build import VERSION as VERSION

MLX_PACKAGE = "mlx" if sys.platform == "darwin" else "mlx[cpu]"

try:
    import mlx.core as mx
except ImportError as error:
    raise ImportError(
        f"mlx-ctc {VERSION} needs MLX {MLX_VERSION}, which cannot be imported here "
        f"({error}). Install it with one of MLX's backends: pip install "
        f'"{MLX_PACKAGE}=={MLX_VERSION}"'
    ) from error

INSTALLED: str = mx.__version__  # type: ignore[attr-defined]

if INSTALLED != MLX_VERSION:
    raise ImportError(
        f"mlx-ctc {VERSION} was built against MLX {MLX_VERSION}, but MLX "
        f"{INSTALLED} is installed. Either install the one it was built against: "
        f'pip install "{MLX_PACKAGE}=={MLX_VERSION}", or a release of mlx-ctc for '
        "yours: pip install --upgrade --force-reinstall mlx-ctc"
    )
