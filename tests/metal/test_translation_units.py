# The complete sources that a Mac's compiler is given.

import mlx.core as mx
import pytest
import translation_units

from mlx_ctc import check


def test_source_is_the_preamble_and_a_kernel(tmp_path, monkeypatch):
    library, folder = tmp_path / "libmlx.dylib", tmp_path / "sources"
    before = "// Copyright\n\ntypedef half float16_t;\n"
    library.write_bytes(b"\0another\0" + before.encode() + b"\0\0")
    monkeypatch.setattr("sys.argv", ["", str(folder), str(library)])
    monkeypatch.setattr(check, "PROBLEMS", [(20, 3, 7, 5, 1, "small")])
    monkeypatch.setattr(check, "DTYPES", [mx.float32])
    translation_units.main()
    sources = {path.name: path.read_text() for path in folder.iterdir()}
    names = {name.split("_20x3x7x5")[0] for name in sources}
    kernels = translation_units.launches_with_texts(
        20, 3, 7, 5, mx.float32, with_logits=True
    )
    assert names == {launch.name for launch, _ in kernels}
    for text in sources.values():
        assert text.startswith(before)
        assert "[[host_name(" in text


def test_library_without_the_preamble_is_refused(tmp_path):
    library = tmp_path / "libmlx.so"
    library.write_bytes(b"nothing")
    with pytest.raises(SystemExit, match="no Metal preamble"):
        translation_units.preamble(library)
