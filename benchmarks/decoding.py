"""mlx_ctc's decoders compared with those of other packages.

The packages take turns within one process, on one sequence and one thread, each with an
array of the kind that it takes: mlx-ctc an mx.array, torchaudio a tensor, the others
NumPy. Times are those of the processor, in all threads, and the least of all turns, so
that other load on the machine changes them little; what MLX waits for its own thread is
not in them. Compared is what they share:

    greedy    fast-ctc-decode
    beam      fast-ctc-decode and flashlight-text: all classes in every frame
    pruned    pyctcdecode with its defaults, flashlight-text: prefixes within 10 nats of
              the best, and for pyctcdecode and mlx-ctc classes within 5
    10 best   as pruned, ten labellings
    hotwords  pyctcdecode: ten of four labels
    alignment torchaudio's forced_align: of the greedy labelling

The scores are a speech recogniser's, of examples/speech, or random ones: peaked as a
trained model's, or flat. torchaudio's ctc_decoder is flashlight-text's, behind tensors.

    pip install fast-ctc-decode flashlight-text pyctcdecode torchaudio
    python examples/speech/main.py
    MLX_CTC_NUM_THREADS=1 python benchmarks/decoding.py --json decoding.json
"""

import argparse
import json
import math
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_ctc import beam_search_decode, forced_align, greedy_decode

ROOT = Path(__file__).parent.parent
PEERS = {
    "fast-ctc-decode": "fast_ctc_decode",
    "flashlight-text": "flashlight",
    "pyctcdecode": "pyctcdecode",
    "torchaudio": "torchaudio",
}
FEATURES = "greedy", "beam", "pruned", "10 best", "hotwords", "alignment"
WITHOUT_BEAM = "greedy", "alignment"


def log_softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    return (x - np.log(np.exp(x).sum(axis=-1, keepdims=True))).astype(np.float32)


def flat(rng, T, C):
    return log_softmax(rng.standard_normal((T, C)))


def peaked(rng, T, C):
    """Of a class between blanks here and there, now and then in doubt."""
    x = rng.standard_normal((T, C))
    best = np.where(rng.random(T) < 0.7, 0, rng.integers(0, C, T))
    x[np.arange(T), best] += 12 * rng.random(T) ** 0.3
    return log_softmax(x)


def speech(folder):
    """Of the example's recogniser: recordings of its test, one after the other."""
    sys.path.insert(0, str(ROOT / "examples" / "speech"))
    from corpora import synthetic
    from paths import latest_model
    from recogniser import Recogniser

    recogniser = Recogniser.load(folder or latest_model())
    waveforms = [said.audio() for said in synthetic.load().test[:8]]
    logits = mx.concatenate([recogniser.listen(w) for w in waveforms])
    return log_softmax(np.array(logits))


def alphabet_of(C):
    """A character for each class, of which the blank's is empty."""
    return ["", *(chr(0x4E00 + c) for c in range(1, C))]


def greedy_labels(x):
    labels, count, _ = greedy_decode(mx.array(x), len(x))
    return labels[: count.item()].tolist()


def hotwords_of(x):
    """Ten sequences of four labels: of the best path's, and of any."""
    C, said = x.shape[1], greedy_labels(x)
    rng = np.random.default_rng(1)
    return [
        *(tuple(said[i : i + 4]) for i in range(0, len(said) - 4, 4)[:5]),
        *(tuple(rng.integers(1, C, 4).tolist()) for _ in range(5)),
    ]


def ours(x, feature, width, rescore=True):
    array, T = mx.array(x), len(x)
    mx.eval(array)
    if feature == "greedy":
        return lambda: mx.eval(greedy_decode(array, T))
    if feature == "alignment":
        said = mx.array(greedy_labels(x))
        mx.eval(said)
        return lambda: mx.eval(forced_align(array, said, T, len(said)))
    options = {"rescore": rescore}
    if feature in ("pruned", "10 best", "hotwords"):
        options |= {"beam_threshold": 10, "label_threshold": 5}
    if feature == "10 best":
        options["nbest"] = 10
    if feature == "hotwords":
        options["hotwords"] = dict.fromkeys(hotwords_of(x), 10.0)
    return lambda: beam_search_decode(array, T, width, **options)


def fast_ctc_decode(x, feature, width):
    import fast_ctc_decode as library

    if x.shape[1] > 200 and feature == "beam":
        return None  # of 2000 classes it takes all of 24 GB
    probs, alphabet = np.exp(x), ["_", *alphabet_of(x.shape[1])[1:]]
    if feature == "greedy":
        return lambda: library.viterbi_search(probs, alphabet)
    if feature == "beam":
        return lambda: library.beam_search(probs, alphabet, width, 0.0)
    return None


def flashlight(x, feature, width):
    from flashlight.lib.text import decoder as library

    if feature not in ("beam", "pruned", "10 best"):
        return None
    T, C = x.shape
    options = library.LexiconFreeDecoderOptions(
        beam_size=width,
        beam_size_token=C,
        beam_threshold=math.inf if feature == "beam" else 10,
        lm_weight=0,
        sil_score=0,
        log_add=True,
        criterion_type=library.CriterionType.CTC,
    )
    silence = C  # no class
    decoder = library.LexiconFreeDecoder(options, library.ZeroLM(), silence, 0, [])
    return lambda: decoder.decode(x.ctypes.data, T, C)


def pyctcdecode(x, feature, width):
    import logging

    logging.disable(logging.WARNING)  # that the alphabet has no space
    from pyctcdecode import build_ctcdecoder

    alphabet = alphabet_of(x.shape[1])
    decoder = build_ctcdecoder(alphabet)
    if feature not in ("pruned", "10 best", "hotwords"):
        return None
    options = {"beam_width": width}
    if feature == "hotwords":
        words = ["".join(alphabet[c] for c in word) for word in hotwords_of(x)]
        options["hotwords"] = words
    return lambda: decoder.decode_beams(x, **options)


def torchaudio(x, feature, width):
    import torch

    log_probs = torch.from_numpy(x)[None]
    torch.set_num_threads(1)
    if feature == "alignment":
        from torchaudio.functional import forced_align as align

        said = torch.tensor([greedy_labels(x)], dtype=torch.int32)
        return lambda: align(log_probs, said)
    if feature not in ("beam", "pruned", "10 best"):
        return None
    from torchaudio.models.decoder import ctc_decoder

    C = x.shape[1]
    tokens = ["-", *alphabet_of(C)[1:]]
    decoder = ctc_decoder(
        lexicon=None,
        tokens=tokens,
        nbest=10 if feature == "10 best" else 1,
        beam_size=width,
        beam_size_token=C,
        beam_threshold=1e9 if feature == "beam" else 10,
        lm_weight=0,
        log_add=True,
        sil_token=tokens[1],  # any: it has no score
    )
    return lambda: decoder(log_probs)


CONTENDERS = {
    "mlx-ctc": ours,
    "mlx-ctc, rescore=False": lambda *of: ours(*of, rescore=False),
    "fast-ctc-decode": fast_ctc_decode,
    "flashlight-text": flashlight,
    "pyctcdecode": pyctcdecode,
    "torchaudio": torchaudio,
}


def contenders(x, feature, width):
    """The functions to time by name, without arguments."""
    functions = {}
    for name, make in CONTENDERS.items():
        if find_spec(PEERS.get(name, "mlx_ctc")) is None:
            continue
        if feature in WITHOUT_BEAM and name.startswith("mlx-ctc,"):
            continue
        if function := make(x, feature, width):
            functions[name] = function
    return functions


def timed(function):
    start = time.process_time()
    function()
    return time.process_time() - start


def seconds(functions, least):
    """The times of each function, which take turns until each has run for ``least``
    seconds. One whose first run takes more than half of that is run once."""
    times = {name: [timed(function)] for name, function in functions.items()}
    in_turn = [name for name in functions if times[name][0] < least / 2]
    for name in in_turn:
        times[name].clear()
    end = time.perf_counter() + least
    while time.perf_counter() < end or len(times["mlx-ctc"]) < 5:
        for name in in_turn:
            times[name].append(timed(functions[name]))
    return times


def measured(functions, seconds_each):
    """The least time of each over the turns, and how often ours goes into another's."""
    times = seconds(functions, seconds_each)
    least = {name: min(of_turn) for name, of_turn in times.items()}
    return {
        "turns": len(times["mlx-ctc"]),
        "seconds": least,
        "ratios": {
            name: theirs / least["mlx-ctc"]
            for name, theirs in least.items()
            if name != "mlx-ctc"
        },
    }


def versions():
    found = {"mlx": mx.__version__}
    for name in PEERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            print(f"{name} is not installed: left out")
    return found


def scores_by_name(args):
    rng = np.random.default_rng(0)
    scores = {} if args.no_speech else {"speech": speech(args.model)}
    return scores | {
        "peaked, short": peaked(rng, 20, 37),
        "peaked": peaked(rng, 300, 96),
        "peaked, many classes": peaked(rng, 200, 1000),
        "flat": flat(rng, 200, 32),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--model", type=Path, metavar="FOLDER", help="default: the one saved last")
    add("--no-speech", action="store_true", help="random scores only")
    add("--widths", type=int, nargs="+", default=[10, 100])
    add("--seconds", type=float, default=2.0, help="for each line; default: 2")
    add("--json", type=Path, metavar="FILE", help="write the times")
    args = parser.parse_args()
    mx.set_default_device(mx.cpu)

    records = []
    result = {"machine": platform.machine(), "versions": versions()}
    print(result)
    for name, x in scores_by_name(args).items():
        for feature in FEATURES:
            for width in args.widths[: 1 if feature in WITHOUT_BEAM else None]:
                record = {
                    "scores": name,
                    "shape": x.shape,
                    "feature": feature,
                    "width": width,
                    **measured(contenders(x, feature, width), args.seconds),
                }
                records.append(record)
                ratios = {peer: f"{r:.2f}" for peer, r in record["ratios"].items()}
                ours = 1e3 * record["seconds"]["mlx-ctc"]
                print(name, x.shape, feature, width, f"{ours:.3f} ms", ratios)
    if args.json:
        result["records"] = records
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
