# A training run in one file, from which it goes on as if it had never stopped.

import json
import os
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_map, tree_unflatten


class CheckpointError(ValueError):
    """A file that is not the checkpoint asked for, in one line."""


def save(
    path: Path, model: nn.Module, optimizer: optim.Optimizer, progress: dict
) -> None:
    """Write the weights, the optimizer's state and ``progress``, which JSON can hold.
    The random numbers of a step follow from its number, so there is no other state.
    The file is replaced whole: one that is killed here leaves the one before."""
    state = {"model": model.parameters(), "optimizer": optimizer.state}
    unfinished = path.with_name("unfinished.safetensors")
    mx.save_safetensors(
        str(unfinished),
        dict(tree_flatten(state)),
        {"progress": json.dumps(progress)},
    )
    os.replace(unfinished, path)


def load(path: Path, model: nn.Module, optimizer: optim.Optimizer) -> dict:
    """Give the model and the optimizer what :func:`save` wrote; return the progress."""
    if not path.is_file():
        raise CheckpointError(f"{path} is not there: nothing to resume.")
    try:
        arrays, metadata = mx.load(str(path), return_metadata=True)
        progress = json.loads(metadata["progress"])
        model.update(like(model.parameters(), "model", arrays))
        optimizer.state = like(optimizer.state, "optimizer", arrays)
    except (KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path} is no checkpoint of this model.") from error
    return progress


def like(tree: dict, name: str, arrays: dict[str, mx.array]) -> dict:
    """A tree of the same names, in the same order, with the values in ``arrays``."""
    names = [inner for inner, _ in tree_flatten(tree)]
    return tree_unflatten([(inner, arrays[f"{name}.{inner}"]) for inner in names])


def share(
    model: nn.Module, optimizer: optim.Optimizer, group: mx.distributed.Group
) -> None:
    """Give all processes of the group the state of the first."""
    if group.size() == 1:
        return
    first = group.rank() == 0

    def shared(array: mx.array) -> mx.array:
        mx.eval(array)  # one after the other, in the same order everywhere
        array = mx.distributed.all_sum(array if first else array * 0, group=group)
        mx.eval(array)
        return array

    model.update(tree_map(shared, model.parameters()))
    optimizer.state = tree_map(shared, optimizer.state)
