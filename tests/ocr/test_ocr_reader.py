# What the OCR example learns, reads, draws and prints.

import re
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from ocr_example import (
    data,
    evaluate,
    folder,
    main,
    model,
    pictures,
    read,
    reader,
    train,
)
from ocr_lines import run, write_line
from PIL import Image

from mlx_ctc import ctc_loss


@pytest.fixture(scope="module")
def digit_reader(trained):
    return reader.Reader.load(trained[0])


def untrained(classes=6):
    """A network of random weights, biases among them."""
    mx.random.seed(0)
    network = model.LineNetwork(classes, features=16, blocks=2)
    return network.apply(lambda array: array + mx.random.normal(array.shape) / 10)


# The network and the step.


def test_padding_changes_nothing(rng):
    network = untrained()
    ink = mx.array(rng.normal(size=(1, 32, 60)).astype(np.float32))
    ink[:, :, 58:] = 0
    widths = mx.array([58])
    alone, lengths = network(ink, widths)
    padded, _ = network(mx.pad(ink, ((0, 0), (0, 0), (0, 100))), widths)
    T = lengths.item()
    assert T == model.LineNetwork.frames(58) == 15
    assert padded.shape == (1, 40, 6)
    np.testing.assert_allclose(padded[:, :T], alone[:, :T], atol=1e-5)


def test_a_frame_sees_its_own_columns(rng):
    """The gradient of a frame's logits is greatest where its columns are."""
    network = untrained()
    ink = mx.array(rng.normal(size=(1, 32, 160)).astype(np.float32))
    frame = 25

    def score(ink):
        return mx.square(network(ink, mx.array([160]))[0][0, frame]).sum()

    by_column = np.abs(np.array(mx.grad(score)(ink))[0]).sum(axis=0)
    centre = (by_column * np.arange(160)).sum() / by_column.sum()
    assert abs(centre - (4 * frame + 2)) < 8


def test_loss_is_the_mean_per_character(rng):
    network = untrained()
    images = [rng.normal(size=(32, width)).astype(np.float32) for width in (40, 60)]
    batch = data.collate(images, [[1, 2], [3, 3, 4]])
    logits, lengths = network(batch.images, batch.widths)
    each = [
        ctc_loss(logits[n, : lengths[n].item()], target, with_logits=True).item()
        for n, target in enumerate(batch.targets)
    ]
    loss = train.loss_of(network, batch).item()
    assert loss == pytest.approx(np.mean(each), rel=1e-5)


def test_a_step_changes_every_weight(rng):
    network, optimizer = untrained(), train.make_optimizer(1e-2, 10)
    before = dict(train.nn.utils.tree_flatten(network.parameters()))
    update = train.make_update(network, optimizer)
    batch = data.collate([rng.normal(size=(32, 40)).astype(np.float32)], [[1, 2]])
    for _ in range(2):  # the first is at a learning rate of 0
        mx.eval(update(batch), network.parameters())
    after = dict(train.nn.utils.tree_flatten(network.parameters()))
    same = [name for name in before if mx.array_equal(before[name], after[name])]
    assert not same


# The command, on a folder of images.


def test_loss_falls_and_most_characters_are_right(trained):
    _, printed = trained
    losses = [float(loss) for loss in re.findall(r"loss +([\d.]+)", printed)]
    assert len(losses) == 10
    assert losses[-1] < losses[0] / 4
    for decoder in ("best path", "beam of  20"):
        [cer] = re.findall(rf"test, {decoder} +CER +([\d.]+) %", printed)
        assert float(cer) < 20


def test_command_says_what_it_does(trained, digits):
    out, printed = trained
    assert f"images in {digits.name}: 60 to train, 20 to test" in printed
    assert "5 characters" in printed
    saved = {path.name for path in out.iterdir()}
    assert saved == {"lines.png", "model.safetensors", "reader.json"}
    with Image.open(out / "lines.png") as picture:
        assert picture.width > 800
        assert np.asarray(picture.convert("RGB")).std() > 10


def test_saved_model_reads_as_the_trained_one_did(trained, digits, tmp_path):
    out, printed = trained
    line = printed.splitlines()[-3]
    assert line.startswith("test, best path")
    again = run("--images", digits, "--start", out, "--steps", 0, "--out", tmp_path)
    assert line in again
    assert "trained" not in again
    assert [path.name for path in tmp_path.iterdir()] == ["lines.png"]


def test_training_goes_on_from_a_model(trained, digits, tmp_path):
    begun = run(
        "--images", digits, "--start", trained[0], "--steps", 10, "--out", tmp_path
    )
    first = float(re.findall(r"loss +([\d.]+)", begun)[0])
    assert first < 1
    assert (tmp_path / "model.safetensors").exists()


def test_same_seed_same_losses(digits, tmp_path):
    command = "--images", digits, "--out", tmp_path, "--steps", 10
    one, again = (re.findall("loss.*", run(*command)) for _ in range(2))
    other = re.findall("loss.*", run(*command, "--seed", 1))
    assert one == again != other


# The reader.


def test_spans_are_where_the_characters_stand(digit_reader, tmp_path):
    path = write_line(tmp_path / "line.png", "1204", pixels=24)
    logits, lengths = digit_reader([folder.read_image(path)])
    spans = digit_reader.align(logits[0, : lengths.item()], "1204")
    assert digit_reader.alphabet.decode([span.token for span in spans]) == "1204"
    # Digits are equally wide; a model may write one at its left or right edge.
    places = [(span.start + span.end) / 2 / lengths.item() for span in spans]
    np.testing.assert_allclose(places, [0.15, 0.38, 0.62, 0.85], atol=0.2)


def test_reader_that_is_not_there_or_damaged_is_refused(tmp_path):
    with pytest.raises(data.DataError, match="no reader is saved there"):
        reader.Reader.load(tmp_path)
    (tmp_path / "reader.json").write_text("{}")
    with pytest.raises(data.DataError, match="damaged or another version's"):
        reader.Reader.load(tmp_path)


def test_a_save_that_fails_leaves_the_model_before(tmp_path, monkeypatch):
    saved = reader.Reader(untrained(), data.Alphabet("12345"))
    saved.save(tmp_path)

    def write_half(self, path):
        Path(path).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(model.LineNetwork, "save_weights", write_half)
    with pytest.raises(OSError, match="no space left"):
        saved.save(tmp_path)
    loaded = reader.Reader.load(tmp_path)
    image = [np.full((32, 50), 255, np.uint8)]
    assert mx.array_equal(loaded(image)[0], saved(image)[0])


def test_errors_are_counted_by_source():
    lines = [
        data.Line("a", "ann", "abcd", 40, None),
        data.Line("b", "bob", "abcd", 40, None),
        data.Line("c", "ann", "ab", 40, None),
    ]
    result = evaluate.Result(lines, ["abcd", "abxx", "a"])
    assert result.cer == pytest.approx(3 / 10)
    assert result.right == pytest.approx(1 / 3)
    bob, ann = result.table().splitlines()
    assert re.fullmatch(r"bob +1 lines  CER +50\.0 %  lines right +0\.0 %", bob)
    assert re.fullmatch(r"ann +2 lines  CER +16\.7 %  lines right +50\.0 %", ann)


def test_line_without_text_can_be_drawn(digit_reader, tmp_path):
    blank = np.full((32, 90), 255, np.uint8)
    line = data.Line("blank", "none", "1", 90, lambda: blank)
    pictures.save_reading(digit_reader, [line], tmp_path / "blank.png")
    assert (tmp_path / "blank.png").stat().st_size > 0


def test_read_prints_a_line_for_each_image(trained, tmp_path, capsys):
    paths = [
        write_line(tmp_path / f"{i}.png", text) for i, text in enumerate(["12", "3"])
    ]
    read.main([*map(str, paths), "--model", str(trained[0]), "--beam", "5"])
    rows = [row.split("\t") for row in capsys.readouterr().out.splitlines()]
    assert rows == [[str(paths[0]), "12"], [str(paths[1]), "3"]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--steps 0", "--steps 0 is for a model to --start with"),
        ("--steps -1", "argument --steps: -1 is less than 0"),
        ("--batch-columns 0", "argument --batch-columns: 0 is less than 1"),
        ("--beam x", "argument --beam: invalid"),
    ],
)
def test_arguments_of_no_use_are_refused(line, message, capsys):
    with pytest.raises(SystemExit):
        main.parse_arguments(line.split())
    assert message in capsys.readouterr().err


def test_errors_end_in_one_line(trained, tmp_path):
    with pytest.raises(SystemExit, match="has no lines to train on"):
        run("--images", tmp_path)
    for part in ("train", "test"):
        write_line(tmp_path / part / "letters.png", "abc")
    with pytest.raises(SystemExit, match="None of the lines can be learned from"):
        run("--images", tmp_path, "--start", trained[0], "--out", tmp_path)
    with pytest.raises(SystemExit, match=r"gone\.png"):
        read.main([str(tmp_path / "gone.png"), "--model", str(trained[0])])
