#include "cuda/device.h"

#include <stdexcept>
#include <string>

#include "cuda/library.h"

namespace mlx_ctc::cuda {

namespace {

// CUdevice_attribute
constexpr int capability_major = 75;
constexpr int capability_minor = 76;

void check(const char* what, int status) {
  if (status != 0) {
    throw std::runtime_error(
        std::string(what) + ": CUDA error " + std::to_string(status));
  }
}

} // namespace

Device describe(int device) {
  Library driver("libcuda.so.1");
  int (*initialise)(unsigned);
  int (*get)(int*, int);
  int (*attribute)(int*, int, int);
  int (*version)(int*);
  driver.find("cuInit", initialise);
  driver.find("cuDeviceGet", get);
  driver.find("cuDeviceGetAttribute", attribute);
  driver.find("cuDriverGetVersion", version);
  check("cuInit", initialise(0));
  int handle;
  check("cuDeviceGet", get(&handle, device));
  int major;
  int minor;
  check("cuDeviceGetAttribute", attribute(&major, capability_major, handle));
  check("cuDeviceGetAttribute", attribute(&minor, capability_minor, handle));
  int newest_cuda;
  check("cuDriverGetVersion", version(&newest_cuda));
  return {10 * major + minor, newest_cuda};
}

} // namespace mlx_ctc::cuda
