// Pointers into threadgroup and device memory, as types for struct members and
// parameters. CUDA has no address spaces in types: cuda_prelude.h makes both
// aliases plain pointers.
//
// Kernel inputs remain template parameters: MLX declares an input of fewer than
// 8 elements in the constant address space, and others in device memory.

#ifndef __CUDACC__
template <typename T>
using Shared = threadgroup T*;
template <typename T>
using Device = device T*;
#endif
