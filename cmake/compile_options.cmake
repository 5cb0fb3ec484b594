# What all of this project's targets are compiled with: included by the project
# and by csrc/ops, which is also a project of its own.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

set(warnings -Wall -Wextra)
set(kernel_optimisation -O3)
set(strip "")

# The Python module lies in mlx_ctc/lib/mlx-<release>, the library of what
# computes without MLX in mlx_ctc/lib, and libmlx in mlx/lib beside mlx_ctc.
if(APPLE)
  set(origin "@loader_path")
else()
  set(origin "$ORIGIN")
endif()

set(MLX_CTC_SANITIZE "" CACHE STRING
    "For the tests: sanitizers, such as \"address,undefined\" or \"thread\"")
if(MLX_CTC_SANITIZE)
  # The kernels at -O3 would take minutes to compile.
  set(kernel_optimisation -O1)
  set(strip NOSTRIP)
  add_compile_options(
    -fsanitize=${MLX_CTC_SANITIZE} -fno-sanitize-recover=undefined
    -fno-omit-frame-pointer -g -O1)
  add_link_options(-fsanitize=${MLX_CTC_SANITIZE})
endif()
