# The functions that take targets, for tests of what all of them have to do.

from functools import partial

from mlx_ctc import ctc_loss, ctc_posteriors, forced_align

# What each returns, as one array or several. The last holds scores: NaN where a call is
# invalid.
OPS = {
    "ctc_loss": partial(ctc_loss, reduction="none"),
    "forced_align": forced_align,
    "ctc_posteriors": ctc_posteriors,
    "ctc_posteriors by class": partial(ctc_posteriors, by_class=True),
}


def results(op, *arguments, **options):
    """The arrays that an op of OPS returns."""
    returned = OPS[op](*arguments, **options)
    return list(returned) if isinstance(returned, tuple) else [returned]


def all_results(*arguments, **options):
    """The arrays of all of them."""
    return [array for op in OPS for array in results(op, *arguments, **options)]
