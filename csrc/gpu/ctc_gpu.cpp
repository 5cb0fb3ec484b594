#include "gpu/ctc_gpu.h"
namespace mlx_ctc::gpu {
std::vector<mx::Shape> saved_shapes(const std::vector<mx::array>&, const Options&) { throw std::runtime_error("no gpu"); }
std::vector<mx::Dtype> saved_dtypes(const std::vector<mx::array>&, const Options&) { throw std::runtime_error("no gpu"); }
void loss(const Options&, mx::Stream, const std::vector<mx::array>&, std::vector<mx::array>&) { throw std::runtime_error("no gpu"); }
void gradient(const Options&, mx::Stream, const std::vector<mx::array>&, std::vector<mx::array>&) { throw std::runtime_error("no gpu"); }
}
