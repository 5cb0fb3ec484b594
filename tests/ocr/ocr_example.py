# The modules of examples/ocr. They have the names of those of examples/speech, whose
# tests run in the same process, so sys.modules does not keep them.

import importlib
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "examples" / "ocr"
NAMES = [path.stem for path in sorted(FOLDER.glob("*.py"))]

others = {name: sys.modules.pop(name) for name in NAMES if name in sys.modules}
sys.path.insert(0, str(FOLDER))
for name in NAMES:
    globals()[name] = importlib.import_module(name)
sys.path.remove(str(FOLDER))
for name in NAMES:
    del sys.modules[name]
sys.modules.update(others)
