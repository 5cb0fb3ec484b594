// Targets and lengths whose values can be read before anything is evaluated:
// what is out of range in them is an error of the call.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mlx/array.h"
#include "mlx/utils.h"

namespace mlx_ctc {

namespace mx = mlx::core;

/**
 * Whether the values of an array can be read now, without an evaluation and
 * without waiting: it has been evaluated and is not traced by a transformation.
 *
 * On CUDA no array counts as known: one that a kernel has used lies in the
 * GPU's memory, and reading it would wait for a copy to the host's.
 */
bool is_known(const mx::array& a);

/**
 * Whether a batch is written as the ops take it: log_probs (T, N, C) of a
 * floating type, targets (N, S) that are not empty and lengths (N), all of
 * int32, and a blank in [0, C). If it is, its known values have been checked by
 * check_lengths() and check_labels(). Most calls have this form and need no
 * conversion.
 */
bool is_plain_batch(
    const std::string& op,
    const mx::array& log_probs,
    const mx::array& targets,
    const mx::array& input_lengths,
    const mx::array& target_lengths,
    int64_t blank);

// The functions below take arrays of any integer type (a mask also of booleans)
// and any strides. Their values must be known, except targets where a parameter
// says whether they are. Those with an `op` throw std::invalid_argument in its
// name.

// lengths (N) have to be in [0, most].
void check_lengths(
    const std::string& op,
    const std::string& name,
    const mx::array& lengths,
    int64_t most);

// The first lengths[n] labels of row n of targets (N, S) have to be in [0, C)
// and not `excluded`, which is -1 where no class is. The lengths are in range.
void check_labels(
    const std::string& op,
    const mx::array& targets,
    const mx::array& lengths,
    int64_t C,
    int64_t excluded);

// An alignment has a frame for each label, and one for a blank between equal
// labels, which are counted if the targets are known too.
void check_fit(
    const std::string& op,
    const mx::array& targets,
    bool targets_are_known,
    const mx::array& input_lengths,
    const mx::array& target_lengths);

// Concatenated targets (sum of lengths) as rows (N, S), with S the greatest
// length. They may be unevaluated. Entries past a target's length are
// arbitrary.
mx::array pad_targets(
    const std::string& op,
    const mx::array& targets,
    bool targets_are_known,
    const mx::array& lengths,
    mx::StreamOrDevice s);

// Of each row of a mask (N, W), which has ones and after them zeros, how many
// ones: lengths (N).
mx::array mask_lengths(
    const std::string& op,
    const std::string& name,
    const mx::array& mask);

// Of each row of targets (N, S), which has labels and after them padding, how
// many labels: lengths (N). Negative numbers and the blank are padding.
mx::array
label_lengths(const std::string& op, const mx::array& targets, int64_t blank);

// The values in 32 bits, those that do not fit as the nearest that do.
mx::array to_int32(const mx::array& a);

} // namespace mlx_ctc
