"""The extension's stub for type checkers, mlx_ctc/_ext.pyi.

python tests/stubs.py writes it; test_package.py compares it.
"""

from pathlib import Path

STUB = Path(__file__).parent.parent / "mlx_ctc" / "_ext.pyi"
HEADER = "# Written by tests/stubs.py from the bindings.\n\n"


def stub():
    from nanobind.stubgen import StubGen

    import mlx_ctc._ext

    generator = StubGen(mlx_ctc._ext, quiet=True)
    generator.put(mlx_ctc._ext)
    return HEADER + generator.get()


if __name__ == "__main__":
    STUB.write_text(stub())
