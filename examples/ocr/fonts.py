# Lines of random text, drawn in fonts that Python packages carry: nothing is fetched.

from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import matplotlib
import numpy as np
from data import DataError, Line, Lines, degrade, scaled_width
from PIL import Image, ImageDraw, ImageFont

CHARACTERS = " !&'(),-./0123456789:;?abcdefghijklmnopqrstuvwxyz"

# Every fifth is in the test alone.
WORDS = (
    "about above across after again air almost along always among animal answer apple "
    "april around ask august autumn away back balloon bank because before begin below "
    "better between bicycle bird black blue boat body book both box bread bridge bring "
    "brown build busy butter call can carry castle catch cellar change chapter child "
    "choose city class clear climb clock cloud coffee cold colour come common copy "
    "corner could country cross dance dark day deep desk different dinner doctor door "
    "double down dream drive each early earth east easy edge eight engine enjoy enough "
    "evening every example eye face fall family far fast father february fill film "
    "find finger fire first fish five flower follow food foot forest forget found free "
    "fresh friday friend from fruit full game garden girl give glass good grass great "
    "green grey ground group grow hair half hand happy hard have head hear heavy hello "
    "high hill history hold home horse hotel hour house hundred idea inch inside "
    "island january job join jump june just keep key kind king kitchen knife know lake "
    "language large last late laugh learn leave letter library light like line little "
    "live long look machine make many map march market matter maybe measure middle "
    "might milk mill mind minute mirror monday money month moon morning most mother "
    "mountain mouse move music name near never new next night nine north nothing "
    "number ocean october offer often oil old once open orange order other over page "
    "paint paper parcel park part people perhaps piece pilot place plain plan planet "
    "play please point possible post pull purple queen question quick quiet quite rain "
    "reach ready red remember rest rice right river road room round salt same sand "
    "saturday say school sea second seem sentence seven shape ship shoe short show "
    "sign silver simple since sister six sky sleep slow small snow soft some song soon "
    "sound south space speak spell spring square star start stone story straight "
    "street strong sugar summer sun sunday sure sweet swim table tail take talk tall "
    "taste tell ten thank their thing think third thousand three through thursday "
    "today together tomorrow tooth town train travel tree trouble true try turn twelve "
    "twenty two uncle under until up useful valley vary very village visit voice wait "
    "walk wall want warm watch water wave weather wednesday week well west what wheel "
    "when white whole window winter with woman wonder wood word work world write year "
    "yellow yesterday young zebra zero zigzag"
).split()
BETWEEN = " ", " ", " ", " ", ", ", ". ", " - ", ": ", "; ", "/", "-", " & "
AFTER = "", "", "", "", ".", "!", "?"


def packaged(name: str) -> list[Path]:
    """The font files of an installed package."""
    try:
        fonts = [file for file in files(name) if file.suffix in (".otf", ".ttf")]
    except PackageNotFoundError:
        message = f'{name} is not installed: pip install ".[examples]"'
        raise DataError(message) from None
    return sorted(Path(file.locate()) for file in fonts)


def fonts_to_train() -> list[Path]:
    """DejaVu, STIX and Computer Modern of Matplotlib, and Hanken Grotesk."""
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    names = "DejaVuSans[-.M]* DejaVuSerif[-.]* STIXGeneral* cm[bt]*10* cmr10* cmss10*"
    paths = {path for name in names.split() for path in folder.glob(f"{name}ttf")}
    return sorted(paths) + packaged("font-hanken-grotesk")


def fonts_to_test() -> list[Path]:
    """Other designs: Caladea, a serif, and Intuitive, which is drawn by hand."""
    return packaged("font-caladea") + packaged("font-intuitive")


def random_word(rng: np.random.Generator, words: list[str]) -> str:
    """A word, its letters in any order, or a number: a model is to learn shapes, not
    words."""
    if rng.random() < 0.2:
        return str(rng.integers(10 ** rng.integers(1, 5)))
    word = str(rng.choice(words))
    return word if rng.random() < 0.6 else "".join(rng.permutation(list(word)))


def random_text(rng: np.random.Generator, words: list[str]) -> str:
    """One to four words with punctuation, or for every sixth line a few characters."""
    if rng.random() < 1 / 6:
        return "".join(rng.choice(list(CHARACTERS[1:]), rng.integers(1, 4)))
    text = random_word(rng, words)
    for _ in range(rng.integers(4)):
        text += str(rng.choice(BETWEEN)) + random_word(rng, words)
    text += str(rng.choice(AFTER))
    return f"({text})" if rng.random() < 0.1 else text


@cache
def face(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


@cache
def extent(font: ImageFont.FreeTypeFont) -> tuple[float, float]:
    """The rows from the highest to the lowest character. The font's own ascent and
    descent leave room for more: in STIX, for formulas."""
    _, top, _, bottom = font.getbbox(CHARACTERS)
    return top, bottom


def place(
    text: str, font: ImageFont.FreeTypeFont, margins: np.ndarray
) -> tuple[tuple[int, int], tuple[float, float]]:
    """The size of a line's image, and where its text begins. The margins are those of
    a side, above and below, as fractions of the font's height."""
    left, _, right, _ = font.getbbox(text)
    top, bottom = extent(font)
    side, above, below = (margins * (bottom - top)).round().astype(int).tolist()
    size = int(right - left) + 2 * side, above + int(bottom - top) + below
    return size, (side - left, above - top)


def draw(text: str, path: Path, pixels: int, margins: np.ndarray) -> np.ndarray:
    """A line in black on white."""
    font = face(path, pixels)
    size, corner = place(text, font, margins)
    image = Image.new("L", size, 255)
    ImageDraw.Draw(image).text(corner, text, 0, font)
    return np.asarray(image)


def drawn_line(text: str, path: Path, rng: np.random.Generator) -> Line:
    """A line of random size and margins."""
    pixels = int(rng.integers(20, 40))
    margins = rng.uniform((0.1, 0, 0), (0.5, 0.15, 0.15))
    (width, height), _ = place(text, face(path, pixels), margins)
    image = partial(draw, text, path, pixels, margins)
    return Line(text, path.stem, text, scaled_width(width, height), image)


def degraded(image: Callable[[], np.ndarray], seed: int) -> np.ndarray:
    return degrade(image(), np.random.default_rng(seed))


def load(train: int = 10000, test: int = 400) -> Lines:
    """Lines in fonts to train on, and in other fonts, with other words, to test on. The
    test's images are degraded, always in the same way."""
    rng = np.random.default_rng(0)
    fonts, words = fonts_to_train(), [w for i, w in enumerate(WORDS) if i % 5]
    training = [
        drawn_line(random_text(rng, words), fonts[i % len(fonts)], rng)
        for i in range(train)
    ]
    rng = np.random.default_rng(1)
    fonts, words = fonts_to_test(), WORDS[::5]
    testing = []
    for i in range(test):
        line = drawn_line(random_text(rng, words), fonts[i % len(fonts)], rng)
        image = partial(degraded, line.image, i)
        testing.append(Line(line.name, line.source, line.text, line.width, image))
    return Lines("drawn lines, tested on fonts never seen", training, testing, [])
