# Where the OCR example's lines come from, and what its batches are.

import re
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from ocr_example import data, folder, fonts
from ocr_lines import write_line
from PIL import Image, ImageFont


def drawn(text, width=None):
    line = fonts.drawn_line(text, fonts.fonts_to_train()[0], np.random.default_rng(0))
    return replace(line, width=width or line.width)


# Fonts.


def test_fonts_of_the_test_are_not_those_of_the_training():
    train, test = fonts.fonts_to_train(), fonts.fonts_to_test()
    assert len(train) >= 30
    assert {path.stem.partition("-")[0] for path in test} == {"Caladea", "Intuitive"}
    assert not set(train) & set(test)


@pytest.mark.parametrize(
    "path", fonts.fonts_to_train() + fonts.fonts_to_test(), ids=lambda path: path.stem
)
def test_fonts_have_every_character(path):
    font = ImageFont.truetype(path, 24)
    missing = bytes(font.getmask("\uffff"))
    for character in fonts.CHARACTERS[1:]:
        glyph = font.getmask(character)
        assert max(bytes(glyph)) > 0, character
        assert bytes(glyph) != missing, character


def test_lines_are_the_same_each_time_and_test_words_are_new():
    one, other = fonts.load(200, 100), fonts.load(200, 100)
    assert [line.text for line in one.train] == [line.text for line in other.train]
    for a, b in zip(one.train + one.test, other.train + other.test, strict=True):
        assert np.array_equal(a.image(), b.image())
    held_out = set(fonts.WORDS[::5])
    trained, tested = (
        {word for line in lines for word in re.findall("[a-z]{6,}", line.text)}
        for lines in (one.train, one.test)
    )
    assert trained & set(fonts.WORDS)
    assert not trained & held_out
    assert tested & held_out
    assert not tested & set(fonts.WORDS) - held_out


def test_width_of_a_drawn_line_is_that_of_its_image():
    for line in fonts.load(40, 10).train:
        assert data.ink(line.image()).shape == (data.HEIGHT, line.width)


def test_fonts_that_are_not_installed_are_named():
    with pytest.raises(data.DataError, match="font-nonesuch is not installed"):
        fonts.packaged("font-nonesuch")


# Images.


@pytest.mark.parametrize("negative", [False, True])
def test_ink_is_positive_on_strokes_and_zero_on_paper(negative):
    image = drawn("Word").image()
    strokes = data.ink(image) > 0.3
    ink = data.ink(255 - image if negative else image)
    assert np.median(ink) == 0
    assert ink[strokes].min() > 0.3
    assert 0.05 < strokes.mean() < 0.5


def test_blank_paper_has_no_ink():
    assert not data.ink(np.full((50, 80), 200, np.uint8)).any()


def test_degraded_line_is_the_same_for_the_same_seed():
    image = drawn("same").image()
    first, again, other = (
        data.degrade(image, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first.shape == image.shape
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


# Batches.


@pytest.fixture(scope="module")
def lines():
    return fonts.load(3000, 1).train


def batches_of(lines, seed=0, steps=100):
    alphabet = data.Alphabet(fonts.CHARACTERS)
    return data.Batches(lines, alphabet, 1024, steps, seed)


def test_batches_depend_on_the_seed_and_the_step_alone(lines):
    one, other = batches_of(lines, 1), batches_of(lines, 1)
    _, batch = one[7], one[50]
    again, different = other[50], batches_of(lines, 2)[50]
    assert mx.array_equal(batch.images, again.images)
    assert batch.targets == again.targets
    assert batch.targets != different.targets


def test_batches_begin_with_short_lines_and_are_of_one_size(lines):
    batches = [batches_of(lines)[step] for step in range(100)]
    columns = [batch.widths.sum().item() for batch in batches]
    padded = [len(batch.targets) * batch.images.shape[2] for batch in batches]
    assert sum(columns) > 0.8 * sum(padded)
    assert 0.6 * 1024 < min(columns) < max(columns) < 1.4 * 1024
    assert all(len(target) <= 3 for batch in batches[:5] for target in batch.targets)
    longest = [max(map(len, batch.targets)) for batch in batches]
    assert max(longest[:20]) < max(longest[80:]) / 3


def test_batch_is_padded_with_paper():
    images = [data.ink(drawn(text).image()) for text in ("a", "longer")]
    batch = data.collate(images, [[1], [2]])
    first, second = batch.widths.tolist()
    assert batch.images.shape[2] % 8 == 0
    assert np.array_equal(batch.images[0, :, :first], images[0])
    assert np.array_equal(batch.images[1, :, :second], images[1])
    assert not batch.images[0, :, first:].any()


def test_lines_are_repeated_where_a_batch_takes_more():
    batch = batches_of([drawn("ab"), drawn("cd")])[3]
    assert len(batch.targets) > 8
    assert {tuple(target) for target in batch.targets} <= {(24, 25), (26, 27)}


def test_lines_of_no_use_are_left_out_by_name():
    lines = [drawn("ab"), drawn("aab", width=13), drawn("aüb"), drawn("ba")]
    left_out = []
    kept = data.usable(lines, data.Alphabet("ab"), lambda width: width // 4, left_out)
    assert [line.text for line in kept] == ["ab", "ba"]
    assert left_out == [
        "aab: its text needs 4 frames of 3",
        "aüb: its text has 'ü'",
    ]


# A folder.


def test_folder_of_two_parts(tmp_path):
    write_line(tmp_path / "train" / "ann" / "1.png", "one two")
    write_line(tmp_path / "train" / "bob" / "1.png", "three")
    write_line(tmp_path / "test" / "cid" / "1.jpg", "four")
    lines = folder.load(tmp_path)
    assert [(line.source, line.text) for line in lines.train] == [
        ("ann", "one two"),
        ("bob", "three"),
    ]
    assert [(line.source, line.text) for line in lines.test] == [("cid", "four")]
    for line in lines.train + lines.test:
        assert data.ink(line.image()).shape == (data.HEIGHT, line.width)


def test_texts_are_one_line_of_composed_characters(tmp_path):
    path = write_line(tmp_path / "line.png", "x")
    path.with_suffix(".txt").write_text("\ufeffcafe\u0301 \n au  lait\n", "utf-8")
    assert folder.read_line(path).text == "caf\u00e9 au lait"


def test_folder_of_one_part_keeps_some_lines_for_the_test(tmp_path):
    for i in range(40):
        write_line(tmp_path / f"{i}.png", str(i))
    lines, again = folder.load(tmp_path), folder.load(tmp_path)
    assert len(lines.train) + len(lines.test) == 40
    assert 1 <= len(lines.test) <= 10
    assert not {line.name for line in lines.train} & {line.name for line in lines.test}
    assert [line.name for line in lines.test] == [line.name for line in again.test]
    everything = folder.load(tmp_path, only_test=True)
    assert (len(everything.train), len(everything.test)) == (0, 40)


def test_files_of_no_use_are_left_out_by_name(tmp_path):
    for part in ("train", "test"):
        write_line(tmp_path / part / "good.png", "good")
    train = tmp_path / "train"
    write_line(train / "empty.png", " ")
    write_line(train / "latin.png", "x").with_suffix(".txt").write_bytes(b"\xfc")
    write_line(train / "alone.png", "x").with_suffix(".txt").unlink()
    write_line(train / "damaged.png", "x").write_bytes(b"not an image")
    lines = folder.load(tmp_path)
    assert [line.text for line in lines.train] == ["good"]
    alone, damaged, empty, latin = lines.left_out
    assert alone == f"{train / 'alone.png'}: there is no alone.txt"
    assert damaged.startswith(f"{train / 'damaged.png'}: it cannot be read: ")
    assert empty == f"{train / 'empty.png'}: its text is empty"
    assert latin == f"{train / 'latin.png'}: latin.txt is not in UTF-8"


def test_folder_without_lines_is_refused(tmp_path):
    with pytest.raises(data.DataError, match="has no lines to train on: there are too"):
        folder.load(tmp_path)
    with pytest.raises(data.DataError, match="gone is not a folder"):
        folder.load(tmp_path / "gone")


def test_colours_and_transparency_become_grey(tmp_path):
    colours = np.zeros((20, 30, 4), np.uint8)
    colours[:, :10, 3] = 255  # black, then nothing
    colours[:, 10:20] = 255, 0, 0, 255
    Image.fromarray(colours, "RGBA").save(tmp_path / "line.png")
    grey = folder.read_image(tmp_path / "line.png")
    assert grey.shape == (20, 30)
    assert grey[0, [0, 15, 25]].tolist() == [0, 76, 255]
