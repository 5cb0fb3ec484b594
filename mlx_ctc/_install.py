"""Checks that the MLX which is running is the MLX this package was built for.

The extension shares MLX's C++ types: another MLX would misread its memory. So
this is imported before the extension, and says how to mend what it finds.
"""

import sys

from mlx_ctc._build import MLX_VERSION, VERSION

MLX_PACKAGE = "mlx" if sys.platform == "darwin" else "mlx[cpu]"

try:
    import mlx.core as mx
except ImportError as error:
    raise ImportError(
        f"mlx-ctc {VERSION} needs MLX {MLX_VERSION}, which cannot be imported here "
        f"({error}). Install it with one of MLX's backends: pip install "
        f'"{MLX_PACKAGE}=={MLX_VERSION}"'
    ) from error

if mx.__version__ != MLX_VERSION:
    raise ImportError(
        f"mlx-ctc {VERSION} was built against MLX {MLX_VERSION}, but MLX "
        f"{mx.__version__} is installed. Either install the one it was built against: "
        f'pip install "{MLX_PACKAGE}=={MLX_VERSION}", or a release of mlx-ctc for '
        "yours: pip install --upgrade --force-reinstall mlx-ctc"
    )
