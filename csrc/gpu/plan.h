// The plan of a step: the launches that compute an op's results on the GPU, in
// their order, and the arrays that go in and out.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "gpu/launch.h"
#include "gpu/problem.h"

namespace mlx_ctc::gpu {

struct Plan {
  // The inputs of the step, then its outputs: the results, then the tables.
  Names arrays;
  // None if the results have no elements, as those of an empty problem. Any
  // element of a result has to be written by a launch.
  std::vector<Launch> launches;
  std::vector<Table> tables; // what the launches write besides the results
};

Plan loss_plan(const Problem& problem);

// Its inputs are those of the loss, the cotangent, and the loss's tables.
Plan gradient_plan(const Problem& problem);

Plan align_plan(const Problem& problem);
Plan posteriors_plan(const Problem& problem);

// All plans of a problem, by name, for the tests and for the kernels that a
// wheel carries.
std::vector<std::pair<std::string, Plan>> all_plans(const Problem& problem);

} // namespace mlx_ctc::gpu
