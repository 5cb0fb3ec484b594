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
    path: Path,
    recipe: dict,
    model: nn.Module,
    optimizer: optim.Optimizer,
    progress: dict,
) -> None:
    """Write the arguments that a resumed run must share, the weights, the optimizer's
    state and how far the run has come. The random numbers of a step follow from its
    number, so there is no other state. The file is replaced whole: a run that is killed
    here leaves the one before."""
    state = {"model": model.parameters(), "optimizer": optimizer.state}
    unfinished = path.with_name("unfinished.safetensors")
    mx.save_safetensors(
        str(unfinished),
        dict(tree_flatten(state)),
        {"recipe": json.dumps(recipe), "progress": json.dumps(progress)},
    )
    os.replace(unfinished, path)


def load(
    path: Path, recipe: dict, model: nn.Module, optimizer: optim.Optimizer
) -> dict:
    """Give the model and the optimizer what :func:`save` wrote; return the progress.
    Raises a :class:`CheckpointError` that names what is not of this recipe."""
    if not path.is_file():
        raise CheckpointError(f"{path} is not there: nothing to resume.")
    try:
        arrays, metadata = mx.load(str(path), return_metadata=True)
        begun_with = json.loads(metadata["recipe"])
        progress = json.loads(metadata["progress"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path} is no checkpoint of this example.") from error
    for name, value in recipe.items():
        if begun_with.get(name) != value:
            raise CheckpointError(
                f"{path} was begun with {name} {begun_with.get(name)}, not {value}."
            )
    model.update(like(model.parameters(), "model", arrays))
    optimizer.state = like(optimizer.state, "optimizer", arrays)
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
