// The beam search as Python calls it.
#pragma once

#include <nanobind/nanobind.h>

namespace mlx_ctc {

// Adds beam_search() to the module.
void bind_beam_search(nanobind::module_& m);

} // namespace mlx_ctc
