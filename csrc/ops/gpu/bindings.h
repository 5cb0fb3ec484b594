// For tests and benchmarks: the launches and their compilation, in Python.
#pragma once

#include <nanobind/nanobind.h>

namespace mlx_ctc::gpu {

// Adds gpu_launches() to the module.
void bind_launches(nanobind::module_& m);

// Adds cuda_texts() and the functions around it.
void bind_cuda(nanobind::module_& m);

} // namespace mlx_ctc::gpu
