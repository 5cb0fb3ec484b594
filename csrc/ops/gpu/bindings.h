// For the tests of the Metal text: the launches, in Python.
#pragma once

#include <nanobind/nanobind.h>

namespace mlx_ctc::gpu {

// Adds gpu_launches() to the module.
void bind_launches(nanobind::module_& m);

} // namespace mlx_ctc::gpu
