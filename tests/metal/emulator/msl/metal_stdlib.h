// Metal's standard library on the host: as much of it as kernels here use.
//
// Address spaces are left to the static check; here they are empty words, and
// the emulator tells them apart by address.

#pragma once

#include "../kernel_interface.h"
#include "msl_types.h"

#include "msl_math.h"
#include "msl_threads.h"

#define device
#define constant
#define threadgroup
#define thread

// Not inlined: the emulator wants to see the call (see Thread::call_path).
#define METAL_FUNC inline

#define __METAL__ 1
#define __METAL_VERSION__ 310

typedef half float16_t;
typedef bfloat bfloat16_t;

// As MLX's preamble does.
using namespace metal;
