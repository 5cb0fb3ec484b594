#include "ops/gpu/bindings.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "ops/ctc_loss.h"
#include "ops/gpu/step.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace mlx_ctc::gpu {

namespace {

nb::object value(const TemplateValue& arg) {
  if (auto type = std::get_if<Type>(&arg)) {
    return nb::cast(dtype_of(*type));
  }
  if (auto flag = std::get_if<bool>(&arg)) {
    return nb::cast(*flag);
  }
  return nb::cast(std::get<int>(arg));
}

// The keys are the keyword arguments of mx.fast.metal_kernel and its result.
nb::dict describe(const Launch& launch, const Names& arrays) {
  nb::list passed;
  for (int array : launch.read) {
    passed.append(arrays[array]);
  }
  if (has_options(launch)) {
    passed.append(options_name);
  }
  nb::list names;
  nb::list shapes;
  nb::list dtypes;
  for (const auto& [name, shape, type] : launch.outputs) {
    names.append(name);
    shapes.append(nb::tuple(nb::cast(shape)));
    dtypes.append(dtype_of(type));
  }
  nb::list template_args;
  for (const auto& [name, arg] : launch.template_args) {
    template_args.append(nb::make_tuple(name, value(arg)));
  }
  nb::dict result;
  result["name"] = text_name(launch, Backend::metal);
  result["input_names"] = launch.inputs;
  result["arrays"] = passed;
  result["output_names"] = names;
  result["output_shapes"] = shapes;
  result["output_dtypes"] = dtypes;
  result["template"] = template_args;
  result["grid"] = launch.grid;
  result["threadgroup"] = launch.threadgroup;
  result["options"] =
      nb::cast(std::vector<int>(launch.options.begin(), launch.options.end()));
  result["source"] = launch.source;
  result["header"] = header(launch, Backend::metal);
  result["ensure_row_contiguous"] = false;
  return result;
}

nb::list describe(const Plan& plan) {
  nb::list result;
  for (const auto& launch : plan.launches) {
    result.append(describe(launch, plan.arrays));
  }
  return result;
}

void bind_plans(nb::module_& m) {
  m.def(
      "gpu_launches",
      [](const mx::array& log_probs,
         const mx::array& targets,
         const mx::array& input_lengths,
         const mx::array& target_lengths,
         int blank,
         bool with_logits,
         bool zero_infinity,
         bool normalized) {
        std::vector<mx::array> inputs = {
            log_probs, targets, input_lengths, target_lengths};
        auto problem = problem_of(
            inputs,
            Options{blank, with_logits, zero_infinity, normalized},
            Backend::metal);
        nb::dict result;
        for (const auto& [name, plan] : all_plans(problem)) {
          result[name.c_str()] = describe(plan);
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
      "normalized"_a,
      "What each plan launches on Metal for inputs of these shapes and dtypes, as "
      "keyword arguments of mx.fast.metal_kernel.");
}

void bind_memory_check(nb::module_& m) {
  m.def(
      "check_gpu_memory",
      [](const mx::array& log_probs,
         const mx::array& targets,
         const mx::array& input_lengths,
         const mx::array& target_lengths,
         int blank,
         bool with_logits,
         size_t limit) {
        auto problem = problem_of(
            {log_probs, targets, input_lengths, target_lengths},
            blank,
            with_logits,
            Backend::metal);
        check_memory(
            "forced_align", problem, align_plan(problem).tables, limit);
      },
      "log_probs"_a,
      "targets"_a,
      "input_lengths"_a,
      "target_lengths"_a,
      "blank"_a,
      nb::kw_only(),
      "with_logits"_a,
      "limit"_a,
      "Refuses an alignment whose tables take more than `limit` bytes on a GPU.");
}

} // namespace

void bind_launches(nb::module_& m) {
  bind_plans(m);
  bind_memory_check(m);
}

} // namespace mlx_ctc::gpu
