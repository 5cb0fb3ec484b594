# cmake -DEXTENSION=_ext.so -DMLX_CORE=core.so -DMLX_VERSION=0.32.4
#       -DNANOBIND_VERSION=3.1.0 -P check_nanobind_tag.cmake
#
# Fails if the extension's nanobind does not share its types with MLX's: such a
# module loads, and refuses every mx.array. The tag is a string in both binaries.
cmake_minimum_required(VERSION 3.25)

set(tag "^(nanobind|v[0-9]+)_[a-z0-9_]*abi[a-z0-9_]*$")

if(NOT MLX_CORE)
  message(WARNING "mlx.core's binary was not found: whether nanobind "
                  "${NANOBIND_VERSION} is the one of MLX ${MLX_VERSION} is not "
                  "checked")
  return()
endif()
file(STRINGS "${EXTENSION}" ours REGEX "${tag}")
file(STRINGS "${MLX_CORE}" theirs REGEX "${tag}")
list(REMOVE_DUPLICATES ours)
list(REMOVE_DUPLICATES theirs)
if(NOT ours OR NOT ours STREQUAL theirs)
  file(REMOVE "${EXTENSION}")
  message(FATAL_ERROR "nanobind ${NANOBIND_VERSION} is not the one that MLX "
                      "${MLX_VERSION} was built with: its tag is \"${ours}\", "
                      "mlx.core's is \"${theirs}\". packaging/mlx_releases.py "
                      "has the nanobind of each MLX release.")
endif()
