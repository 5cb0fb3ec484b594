"""Models of mlx-audio with random weights, in folders as the Hugging Face Hub has them,
and recordings in which each letter is a tone."""

import json
import wave

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

RATE = 16000
PITCH = {"a": 400, "b": 800, "c": 1600, " ": 3000}
TEXTS = ["abc", "ca b", "bb", "cab a"]

WAV2VEC = {
    "model_type": "wav2vec2",
    "feat_extract_norm": "group",
    "vocab_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": [16, 16, 16],
    "conv_kernel": [10, 8, 8],
    "conv_stride": [5, 8, 8],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
}
# As the large models and MMS differ from the base models.
MMS = WAV2VEC | {
    "adapter_attn_dim": 4,
    "conv_bias": True,
    "do_stable_layer_norm": True,
    "feat_extract_norm": "layer",
}
PARAKEET = {
    "target": "nemo.collections.asr.models.ctc_bpe_models.EncDecCTCModelBPE",
    "preprocessor": {
        "sample_rate": RATE,
        "normalize": "per_feature",
        "window_size": 0.025,
        "window_stride": 0.01,
        "window": "hann",
        "features": 80,
        "n_fft": 512,
        "dither": 1e-5,
    },
    "encoder": {
        "feat_in": 80,
        "n_layers": 2,
        "d_model": 32,
        "n_heads": 4,
        "ff_expansion_factor": 2,
        "subsampling_factor": 8,
        "self_attention_model": "rel_pos",
        "subsampling": "dw_striding",
        "conv_kernel_size": 9,
        "subsampling_conv_channels": 16,
        "pos_emb_max_len": 5000,
    },
    "decoder": {"feat_in": 32, "num_classes": -1},
    "decoding": {"greedy": None},
}


def write_vocabulary(folder):
    characters = "<pad> <s> </s> <unk> | a b c".split()
    vocabulary = {character: label for label, character in enumerate(characters)}
    (folder / "vocab.json").write_text(json.dumps({"eng": vocabulary}))


def write_mms(folder, config=MMS):
    from mlx_audio.stt.models.mms import Model, ModelConfig

    mx.random.seed(0)
    weights = dict(tree_flatten(Model(ModelConfig.from_dict(config)).parameters()))
    for name in weights:
        if ".conv.weight" in name:  # torch's layout
            weights[name] = weights[name].swapaxes(1, 2)
    write_vocabulary(folder)
    (folder / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(folder / "model.safetensors"), weights)


def write_parakeet(folder):
    from mlx_audio.stt.models.parakeet import Model
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=8,
        hard_vocab_limit=False,
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
    )
    tokenizer = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    units = [tokenizer.id_to_piece(n) for n in range(tokenizer.get_piece_size())]
    config = PARAKEET | {"decoder": PARAKEET["decoder"] | {"vocabulary": units}}
    text = json.dumps(config)
    (folder / "config.json").write_text(text)
    mx.random.seed(0)
    model = Model.from_config(json.loads(text))
    model.save_weights(str(folder / "model.safetensors"))


def write_recordings(folder):
    """Pairs of a file and its text."""
    rng = np.random.default_rng(0)
    time = np.arange(RATE // 4) / RATE
    examples = []
    for text in TEXTS:
        pause = np.zeros(RATE // 10)
        tones = [np.append(np.sin(2 * np.pi * PITCH[x] * time), pause) for x in text]
        samples = np.concatenate([pause, *tones])
        samples = 9000 * samples + rng.normal(0, 90, len(samples))
        path = folder / f"{text}.wav"
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes(samples.astype("<i2").tobytes())
        examples.append((str(path), text))
    return examples
