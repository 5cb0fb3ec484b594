#include "gpu/plan.h"

#include <algorithm>
#include <limits>
#include <map>
#include <stdexcept>
#include <utility>

#include "gpu/kernels.h"

namespace mlx_ctc::gpu {

Names joined(std::initializer_list<Names> parts) {
  Names all;
  for (const auto& part : parts) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

Names batch_names() {
  return {"log_probs", "targets", "input_lengths", "target_lengths"};
}

Names scan_tables() {
  return {
      "normalisers",
      "z",
      "checkpoints",
      "edges",
      "classes",
      "labels",
      "label_of_rank"};
}

std::tuple<int, int, int>
segments_grid(const char* kernel, int threads, int64_t segments, int N) {
  constexpr int most = std::numeric_limits<int>::max();
  if (segments > most / threads) {
    throw std::invalid_argument(
        "[mlx_ctc] Expected at most " + std::to_string(most / threads) +
        " threadgroups for a sequence in the kernel " + kernel + " but got " +
        std::to_string(segments) + ". Pass shorter sequences.");
  }
  int across = std::min(N, 65535);
  return {
      static_cast<int>(threads * segments),
      across,
      static_cast<int>(ceil_div(N, across))};
}

namespace {

using Parameters = std::map<std::string, Parameter>;

Parameters batch_parameters(const Problem& problem) {
  return {
      {"log_probs", {problem.type, 3}},
      {"targets", {Type::int32, 2}},
      {"input_lengths", {Type::int32, 1}},
      {"target_lengths", {Type::int32, 1}},
      {options_name, {Type::int32, 1}}};
}

void add(Parameters& parameters, const std::vector<Table>& tables) {
  for (const auto& table : tables) {
    int ndim = static_cast<int>(table.shape.size());
    parameters.insert_or_assign(table.name, Parameter{table.type, ndim});
  }
}

int index_in(const Names& names, const std::string& name) {
  auto found = std::find(names.begin(), names.end(), name);
  return static_cast<int>(found - names.begin());
}

// What the launches write besides the results.
std::vector<Table> tables_of(
    const std::vector<Launch>& launches,
    const Names& results) {
  std::vector<Table> tables;
  for (const auto& launch : launches) {
    for (const auto& output : launch.outputs) {
      if (std::ranges::count(results, output.name) == 0) {
        tables.push_back(output);
      }
    }
  }
  return tables;
}

// The array that is passed for a parameter. Kernels do not read those that are
// passed in the place of tables that there are not.
std::string array_for(const std::string& parameter, const Problem& problem) {
  if (parameter == "normalisers" && !problem.has_normalisers()) {
    return "log_probs";
  }
  if (parameter == "factors" && !problem.has_factors()) {
    return "checkpoints"; // of the same type
  }
  return parameter;
}

OptionValues values_of(const Problem& problem) {
  return {problem.blank, problem.zero_infinity};
}

// `parameters` are those of the step's inputs.
Plan plan(
    const Problem& problem,
    const Names& inputs,
    Parameters parameters,
    std::vector<Launch> launches,
    const Names& results) {
  auto tables = tables_of(launches, results);
  auto arrays = joined({inputs, results});
  for (const auto& table : tables) {
    arrays.push_back(table.name);
  }
  for (auto& launch : launches) {
    launch.options = values_of(problem);
    for (const auto& name : launch.inputs) {
      auto array = array_for(name, problem);
      launch.parameters.push_back(parameters.at(array));
      if (name != options_name) {
        launch.read.push_back(index_in(arrays, array));
      }
    }
    for (const auto& output : launch.outputs) {
      launch.written.push_back(index_in(arrays, output.name));
    }
    add(parameters, launch.outputs);
  }
  return {std::move(arrays), std::move(launches), std::move(tables)};
}

// The launch, preceded by that of the normalisers if the scores are logits.
std::vector<Launch> with_normalisers(const Problem& problem, Launch launch) {
  std::vector<Launch> launches;
  if (problem.has_normalisers()) {
    launches.push_back(normalisers_launch(problem));
  }
  launches.push_back(std::move(launch));
  return launches;
}

} // namespace

Plan loss_plan(const Problem& problem) {
  std::vector<Launch> launches;
  if (problem.N > 0) { // a sequence of no frames has a loss
    launches = with_normalisers(problem, scan_launch(problem));
    if (problem.has_factors()) {
      launches.push_back(factors_launch(problem));
    }
    launches.push_back(refine_launch(problem));
  }
  return plan(
      problem,
      batch_names(),
      batch_parameters(problem),
      std::move(launches),
      {"loss"});
}

Plan gradient_plan(const Problem& problem) {
  auto inputs = joined({batch_names(), {"cotangent"}});
  auto parameters = batch_parameters(problem);
  parameters["cotangent"] = {Type::float32, 1};
  auto tables = loss_plan(problem).tables;
  for (const auto& table : tables) {
    inputs.push_back(table.name);
  }
  add(parameters, tables);
  std::vector<Launch> launches;
  if (!problem.is_empty()) {
    launches.push_back(gradient_launch(problem));
  }
  return plan(
      problem,
      inputs,
      std::move(parameters),
      std::move(launches),
      {"gradient"});
}

Plan align_plan(const Problem& problem) {
  std::vector<Launch> launches;
  if (!problem.is_empty()) {
    launches = with_normalisers(problem, align_launch(problem));
  }
  return plan(
      problem,
      batch_names(),
      batch_parameters(problem),
      std::move(launches),
      {"alignments", "scores"});
}

Plan posteriors_plan(const Problem& problem) {
  std::vector<Launch> launches;
  if (!problem.is_empty()) {
    launches = with_normalisers(problem, scan_launch(problem));
    launches.push_back(posteriors_launch(problem));
  }
  return plan(
      problem,
      batch_names(),
      batch_parameters(problem),
      std::move(launches),
      {problem.by_class ? "by_class" : "by_label"});
}

std::vector<std::pair<std::string, Plan>> all_plans(const Problem& problem) {
  Problem by_label = problem; // without the options of the loss alone
  by_label.zero_infinity = false;
  by_label.normalized = true;
  Problem by_class = by_label;
  by_class.by_class = true;
  return {
      {"loss", loss_plan(problem)},
      {"gradient", gradient_plan(problem)},
      {"align", align_plan(by_label)},
      {"posteriors", posteriors_plan(by_label)},
      {"posteriors_by_class", posteriors_plan(by_class)}};
}

} // namespace mlx_ctc::gpu
