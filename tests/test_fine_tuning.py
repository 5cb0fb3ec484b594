# docs/fine-tuning.md is right: its code is executed, with models of mlx-audio that have
# random weights, and what it says of mlx-audio and MLX is tested.

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
import tiny_models
from launcher import launch
from mlx.utils import tree_flatten

pytest.importorskip("mlx_audio", reason=".ci/fine-tuning installs mlx-audio")
pytest.importorskip("jiwer", reason="jiwer comes with the extra 'examples'")

PAGE = Path(__file__).parent.parent / "docs" / "fine-tuning.md"

# What the page says of a model, and the blocks to take for it.
MODELS = {
    "mms": ("MMS and wav2vec 2.0", "facebook/mms-1b-fl102", tiny_models.write_mms),
    "parakeet": (
        "Parakeet-CTC",
        "mlx-community/parakeet-ctc-0.6b",
        tiny_models.write_parakeet,
    ),
}
TRAINED = {
    "mms": ["all but the convolutions", "the adapters of MMS", "LoRA"],
    "parakeet": ["all but the convolutions", "LoRA"],
}
CASES = [(model, trained) for model in MODELS for trained in TRAINED[model]]
CHECKPOINTING = "gradient checkpointing"


def blocks_by_section():
    """The Python of each section; of each block, the name in its first line, if any."""
    sections = {}
    for section in re.split(r"^###? ", PAGE.read_text(), flags=re.MULTILINE):
        blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
        if blocks:
            heading = section.partition("\n")[0]
            marks = [re.match(r"# (.*)\n", block) for block in blocks]
            sections[heading] = [
                (mark[1] if mark else None, block)
                for mark, block in zip(marks, blocks, strict=True)
            ]
    return sections


SECTIONS = blocks_by_section()
DEFINITIONS = [
    heading
    for heading in SECTIONS
    if heading not in ("Training", "Error rates", "Saving")
]


def replaced(code, old, new):
    assert code.count(old) == 1
    return code.replace(old, new)


def script(folder, model, choices, dtype="float32"):
    """What a user copies from the page, with a folder in place of a name on the Hub."""
    model_mark, name, _ = MODELS[model]
    wanted = {None, model_mark, *choices}
    blocks = [block for heading in DEFINITIONS for block in SECTIONS[heading]]
    code = "\n".join(block for mark, block in blocks if mark in wanted)
    code = replaced(code, f'"{name}"', repr(str(folder)))
    return replaced(code, "dtype = mx.float32", f"dtype = mx.{dtype}")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for model, (_, _, write) in MODELS.items():
        made[model] = tmp_path_factory.mktemp(model)
        write(made[model])
    return made


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return tiny_models.write_recordings(tmp_path_factory.mktemp("recordings"))


@pytest.fixture(autouse=True)
def mlx_as_it_was(device):
    """The page may replace the call of a layer's class, and switch compilation off."""
    from mlx_audio.stt.models.parakeet.conformer import ConformerBlock
    from mlx_audio.stt.models.wav2vec import wav2vec

    classes = [
        ConformerBlock,
        wav2vec.Wav2Vec2EncoderLayer,
        wav2vec.Wav2Vec2EncoderLayerStableLayerNorm,
    ]
    calls = [layer_class.__call__ for layer_class in classes]
    yield
    mx.enable_compile()
    for layer_class, call in zip(classes, calls, strict=True):
        layer_class.__call__ = call


@pytest.fixture
def page(folders, examples) -> Callable[..., dict]:
    """Executes the page's definitions; returns what they leave."""

    def execute(model, *choices, folder=None, **options):
        namespace = {"examples": examples, "held_out": examples}
        code = script(folder or folders[model], model, choices, **options)
        exec(compile(code, PAGE.name, "exec"), namespace)
        return namespace

    return execute


def run(page, *headings):
    """Executes sections of the page after its definitions."""
    for heading in headings:
        for _, block in SECTIONS[heading]:
            exec(compile(block, PAGE.name, "exec"), page)


def train(page, steps=10, learning_rate=5e-3, enough=0.0):
    """The losses of some steps on one batch, by the page's step."""
    batch = page["batch_of"](page["examples"])
    mx.random.seed(1)
    update, state = page["make_update"](optim.AdamW(learning_rate))
    losses = []
    for _ in range(steps):
        loss = update(*batch)
        mx.eval(loss, state)
        losses.append(loss.item())
        if losses[-1] < enough:
            break
    return losses


def arrays(page):
    """Copies of all weights, and the names of those that are trained."""
    weights = dict(tree_flatten(page["model"].parameters()))
    trained = dict(tree_flatten(page["model"].trainable_parameters()))
    copies = {name: np.array(w.astype(mx.float32)) for name, w in weights.items()}
    return copies, set(trained)


class TestTraining:
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize(("model", "trained"), CASES)
    def test_loss_falls_with_checkpointing_and_without(
        self, page, device, model, trained, dtype
    ):
        mx.disable_compile()
        curves = []
        for choices in ([trained], [trained, CHECKPOINTING]):
            made = page(model, *choices, dtype=dtype)
            before, names = arrays(made)
            curves.append(train(made))
            after, _ = arrays(made)
            changed = {name for name in after if (before[name] != after[name]).any()}
            assert changed <= names
            assert len(changed) > 0.8 * len(names)
            for name, w in tree_flatten(made["model"].parameters()):
                assert w.dtype == (mx.float32 if name in names else made["dtype"])
        assert curves[0][-1] < 0.6 * curves[0][0]
        tolerance = 0 if device == mx.cpu else 1e-2
        np.testing.assert_allclose(*curves, rtol=tolerance)

    @pytest.mark.parametrize("model", MODELS)
    def test_compiled_step_has_the_curve_of_the_plain_one(self, page, device, model):
        compiled = train(page(model, "LoRA"), steps=5)
        mx.disable_compile()
        plain = train(page(model, "LoRA"), steps=5)
        assert plain[-1] < plain[0]
        tolerance = 0 if device == mx.cpu else 1e-3
        np.testing.assert_allclose(compiled, plain, rtol=tolerance)

    @pytest.mark.parametrize(
        ("model", "learning_rate"), [("mms", 0.02), ("parakeet", 0.003)]
    )
    def test_texts_are_learnt(self, page, capsys, model, learning_rate):
        mx.disable_compile()
        made = page(model, "all but the convolutions")
        assert train(made, 400, learning_rate, enough=0.02)[-1] < 0.02
        run(made, "Error rates")
        assert made["heard"] == tiny_models.TEXTS
        assert capsys.readouterr().out == "WER 0.0%  CER 0.0%\n"

    @pytest.mark.parametrize("model", MODELS)
    def test_page_runs_to_its_end(self, page, tmp_path, monkeypatch, capsys, model):
        monkeypatch.chdir(tmp_path)
        mx.disable_compile()
        made = page(model, "LoRA", dtype="bfloat16")
        made["examples"] = 2 * made["examples"]  # a batch of the page's size
        run(made, "Training", "Error rates", "Saving")
        losses = re.findall(r"loss ([\d.]+)", capsys.readouterr().out)
        assert len(losses) == 10
        assert float(losses[-1]) < float(losses[0])

    def test_two_processes_have_the_curve_of_one(
        self, page, folders, examples, device, tmp_path
    ):
        if device != mx.cpu:
            pytest.skip("joins processes on the CPU")
        mx.disable_compile()
        losses = train(page("parakeet", "LoRA"), steps=5)
        file = tmp_path / "fine_tune.py"
        code = script(folders["parakeet"], "parakeet", ["LoRA"])
        file.write_text(f"{CPU}{code}\nexamples = {examples!r}\n{PROCESS}")
        printed = re.findall(r"^rank \d: (.*)$", launch([file]), re.MULTILINE)
        assert len(printed) == 2
        shares = np.array([line.split() for line in printed], float)
        np.testing.assert_allclose(shares.mean(axis=0), losses, rtol=1e-4)
        assert (shares[0] != shares[1]).all()


CPU = """import mlx.core as mx
mx.set_default_device(mx.cpu)
mx.disable_compile()
"""
# Each process learns from its half of the examples.
PROCESS = """
group = mx.distributed.init()
update, state = make_update(optim.AdamW(5e-3))
losses = []
for _ in range(5):
    losses.append(update(*batch_of(examples[group.rank() :: group.size()])))
    mx.eval(losses, state)
print(f"rank {group.rank()}:", *mx.stack(losses).tolist(), flush=True)
"""


class TestScores:
    """The page's logits are those of mlx-audio's own call, padded or not."""

    @pytest.fixture(params=["mms", "wav2vec 2.0", "parakeet"])
    def made(self, request, page, tmp_path):
        if request.param == "wav2vec 2.0":
            tiny_models.write_mms(tmp_path, tiny_models.WAV2VEC)
            return page("mms", folder=tmp_path)
        return page(request.param)

    @staticmethod
    def alone(made, n):
        inputs, lengths, _ = made["batch_of"](made["examples"][n : n + 1])
        inputs = inputs[:, : lengths.item()]
        logits, frames = made["scores"](inputs, lengths)
        assert frames.item() == logits.shape[1]
        return inputs, logits

    def test_are_those_of_the_model(self, made, device):
        for n in range(len(tiny_models.TEXTS)):
            inputs, logits = self.alone(made, n)
            model = made["model"]
            if hasattr(model, "wav2vec2"):
                expected = model(inputs)
                sums = mx.logsumexp(expected, axis=-1)
                assert (mx.abs(sums) > 0.1).any()  # logits
            else:
                convolutions = model.encoder.pre_encode
                model.encoder._mask_padding = convolutions._mask_padding = False
                expected = model.decoder(model.encoder(inputs)[0])
                model.encoder._mask_padding = convolutions._mask_padding = True
                sums = mx.logsumexp(expected, axis=-1)
                assert mx.abs(sums).max() < 1e-5  # log-probabilities
                logits = nn.log_softmax(logits)
            tolerance = 1e-5 if device == mx.cpu else 1e-2
            np.testing.assert_allclose(logits, expected, rtol=0, atol=tolerance)

    def test_are_the_same_in_a_batch(self, made, device):
        inputs, lengths, _ = made["batch_of"](made["examples"])
        logits, frames = made["scores"](inputs, lengths)
        differences = []
        for n, count in enumerate(frames.tolist()):
            _, expected = self.alone(made, n)
            differences.append(mx.abs(logits[n, :count] - expected[0]).max().item())
        config = getattr(made["model"], "config", None)
        if config and not config.do_stable_layer_norm:
            assert max(differences) > 0.1  # the page says that these depend on it
        else:
            assert max(differences) < (1e-4 if device == mx.cpu else 1e-2)

    @pytest.mark.parametrize("config", [tiny_models.MMS, tiny_models.WAV2VEC])
    def test_are_those_of_transformers(self, page, device, tmp_path, config):
        torch = pytest.importorskip("torch", reason="compares with PyTorch")
        from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

        torch.manual_seed(0)
        theirs = Wav2Vec2ForCTC(Wav2Vec2Config(**config)).eval()
        theirs.save_pretrained(tmp_path)
        tiny_models.write_vocabulary(tmp_path)
        made = page("mms", folder=tmp_path)
        inputs, lengths, _ = made["batch_of"](made["examples"])
        logits, frames = made["scores"](inputs, lengths)
        mask = None
        if config["feat_extract_norm"] == "layer":
            mask = np.arange(inputs.shape[1]) < np.array(lengths)[:, None]
            mask = torch.tensor(mask.astype(np.int64))
        with torch.no_grad():
            expected = theirs(torch.tensor(np.array(inputs)), mask).logits.numpy()
        tolerance = 1e-5 if device == mx.cpu else 1e-2
        for n, count in enumerate(frames.tolist()):
            np.testing.assert_allclose(
                logits[n, :count], expected[n, :count], rtol=0, atol=tolerance
            )

    def test_lengths_are_those_of_unpadded_recordings(self, made):
        _, lengths, labels = made["batch_of"](made["examples"])
        assert len(set(lengths.tolist())) == len(lengths)
        texts = [[c for c in row if c != -100] for row in labels.tolist()]
        assert [made["decode"](row) for row in texts] == tiny_models.TEXTS


class TestSaving:
    def test_trained_weights_come_back(self, page, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        mx.disable_compile()
        for model in MODELS:
            made = page(model, "LoRA")
            batch = made["batch_of"](made["examples"])
            untrained = made["scores"](*batch[:2])[0]
            train(made, steps=3)
            trained = made["scores"](*batch[:2])[0]
            run(made, "Saving")
            again = page(model, "LoRA")
            again["model"].load_weights("fine-tuned.safetensors", strict=False)
            logits = again["scores"](*batch[:2])[0]
            np.testing.assert_array_equal(logits, trained)
            assert mx.abs(logits - untrained).max().item() > 0.1

    def test_mms_weights_do_not_belong_in_the_folder(self, page, folders, tmp_path):
        shutil.copytree(folders["mms"], tmp_path, dirs_exist_ok=True)
        model = page("mms")["model"]
        model.save_weights(str(tmp_path / "model.safetensors"))
        again = page("mms", folder=tmp_path)["model"]
        first = [m.wav2vec2.feature_extractor.conv_layers[0] for m in (model, again)]
        assert [layer.conv.weight.shape for layer in first] == [
            (16, 10, 1),
            (16, 1, 10),
        ]


class TestWhatThePageSays:
    def test_mms_has_no_mask(self, page):
        body = page("mms")["model"].wav2vec2
        with pytest.raises(AttributeError, match="_get_feature_vector_attention_mask"):
            body(mx.zeros((1, 4000)), attention_mask=mx.ones((1, 4000)))

    def test_blanks(self, page):
        assert page("mms")["blank"] == 0
        made = page("parakeet")
        assert made["blank"] == made["model"].decoder.decoder_layers[0].bias.size - 1

    def test_frames_last_80_ms_and_20_ms(self, page):
        from mlx_audio.stt.models.wav2vec import ModelConfig

        made = page("mms")
        made["model"] = Mock(config=ModelConfig())
        _, frames = made["scores"](None, mx.array([10 * tiny_models.RATE]))
        assert frames.item() == 499
        _, frames = page("parakeet")["scores"](
            mx.zeros((1, 1001, 80)), mx.array([1001])
        )
        assert frames.item() == 126

    def test_models_are_loaded_in_evaluation_mode(self, page):
        assert not any(page(model)["model"].training for model in MODELS)

    def test_mlx_audio_does_not_know_the_name_of_wav2vec2(self, folders, tmp_path):
        from mlx_audio.stt import load

        folder = tmp_path / "wav2vec2-base-960h"
        shutil.copytree(folders["mms"], folder)
        with pytest.raises(ValueError, match="wav2vec2 not supported"):
            load(folder)

    def test_unfreezing_a_layer_trains_its_statistics(self, page):
        model = page("parakeet")["model"]

        def statistics():
            names = dict(tree_flatten(model.trainable_parameters()))
            return [name for name in names if "running" in name]

        assert statistics() == []
        model.freeze()
        model.encoder.layers[0].unfreeze()
        assert len(statistics()) == 2

    def test_checkpointing_draws_dropout_again(self):
        class Layer(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight, self.dropout = mx.ones(1000), nn.Dropout(0.5)

            def __call__(self, x):
                return self.dropout(self.weight * x)

        def same_places(call):
            def loss(x):
                y = call(x)
                return y.sum(), y

            (_, y), gradient = nn.value_and_grad(layer, loss)(mx.ones(1000))
            return mx.array_equal(y == 0, gradient["weight"] == 0).item()

        layer = Layer()
        assert same_places(layer)
        assert not same_places(nn.utils.checkpoint(layer))

    def test_small_steps_are_lost_in_bfloat16(self):
        weight = mx.array(0.03, mx.bfloat16)
        assert weight - mx.array(1e-5, mx.bfloat16) == weight
        assert (weight + mx.array(1.2e-4, mx.bfloat16) - weight).item() == 2**-13
