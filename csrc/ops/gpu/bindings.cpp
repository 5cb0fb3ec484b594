#include "ops/gpu/bindings.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "ops/gpu/launch.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace mlx_ctc::gpu {

namespace {

nb::object value(const mx::fast::TemplateArg& arg) {
  return std::visit([](auto v) { return nb::cast(v); }, arg);
}

// The keys are mx.fast.metal_kernel's words, so that a test can hand them over.
nb::dict describe(const Launch& launch) {
  nb::list names;
  nb::list shapes;
  nb::list dtypes;
  for (const auto& [name, shape, dtype] : launch.outputs) {
    names.append(name);
    shapes.append(
        nb::tuple(nb::cast(std::vector<int>(shape.begin(), shape.end()))));
    dtypes.append(dtype);
  }
  nb::list template_args;
  for (const auto& [name, arg] : launch.template_args) {
    template_args.append(nb::make_tuple(name, value(arg)));
  }
  nb::dict result;
  result["name"] = launch.name;
  result["input_names"] = launch.inputs;
  result["arrays"] = launch.arrays;
  result["output_names"] = names;
  result["output_shapes"] = shapes;
  result["output_dtypes"] = dtypes;
  result["template"] = template_args;
  result["grid"] = launch.grid;
  result["threadgroup"] = launch.threadgroup;
  result["source"] = launch.source;
  result["header"] = header(launch, Backend::metal);
  result["ensure_row_contiguous"] = false;
  return result;
}

nb::list describe(const std::vector<Launch>& launches) {
  nb::list result;
  for (const auto& launch : launches) {
    result.append(describe(launch));
  }
  return result;
}

} // namespace

void bind_launches(nb::module_& m) {
  m.def(
      "gpu_launches",
      [](const mx::array& log_probs,
         const mx::array& targets,
         const mx::array& input_lengths,
         const mx::array& target_lengths,
         int blank,
         bool with_logits,
         bool zero_infinity) {
        std::vector<mx::array> inputs = {
            log_probs, targets, input_lengths, target_lengths};
        Options options = {blank, with_logits, zero_infinity};
        nb::dict result;
        result["loss"] =
            describe(loss_launches(inputs, options, Backend::metal));
        result["gradient"] =
            describe(gradient_launches(inputs, options, Backend::metal));
        result["align"] = describe(
            align_launches(inputs, {blank, with_logits}, Backend::metal));
        for (bool by_class : {false, true}) {
          result[by_class ? "posteriors_by_class" : "posteriors"] =
              describe(posterior_launches(
                  inputs, {blank, with_logits, by_class}, Backend::metal));
        }
        return result;
      },
      "log_probs"_a,
      "targets"_a,
      "input_lengths"_a,
      "target_lengths"_a,
      nb::kw_only(),
      "blank"_a,
      "with_logits"_a,
      "zero_infinity"_a,
      "What each op launches on Metal for inputs of these shapes and dtypes, as "
      "keyword arguments of mx.fast.metal_kernel.");
}

} // namespace mlx_ctc::gpu
