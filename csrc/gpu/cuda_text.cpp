#include "gpu/cuda_text.h"

#include <string_view>
#include <type_traits>

#include "kernel_text.h"

namespace mlx_ctc::gpu {

namespace {

const char* name_of(Type type) {
  switch (type) {
    case Type::float16:
      return "float16_t";
    case Type::bfloat16:
      return "bfloat16_t";
    case Type::float32:
      return "float";
    case Type::float64:
      return "double";
    case Type::int32:
      return "int32_t";
    case Type::int64:
      return "int64_t";
    case Type::uint16:
      return "uint16_t";
    case Type::uint32:
      return "uint32_t";
    case Type::uint64:
      break;
  }
  return "uint64_t";
}

std::string declaration(const std::string& name, const TemplateValue& value) {
  if (auto type = std::get_if<Type>(&value)) {
    return "using " + name + " = " + name_of(*type) + ";\n";
  }
  if (auto flag = std::get_if<bool>(&value)) {
    return "constexpr bool " + name + " = " + (*flag ? "true;\n" : "false;\n");
  }
  auto number = std::to_string(std::get<int>(value));
  return "constexpr int " + name + " = " + number + ";\n";
}

// Small arrays that are passed by value: their names and sizes.
enum class Kind { options, shape, strides };

struct SmallArray {
  Kind kind;
  size_t input;
  std::string name;
  int size;
};

// In the order of the scalars.
std::vector<SmallArray> small_arrays(const Launch& launch) {
  std::string_view body = launch.source;
  std::vector<SmallArray> arrays;
  for (size_t i = 0; i < launch.inputs.size(); ++i) {
    const auto& name = launch.inputs[i];
    int ndim = launch.parameters[i].ndim;
    if (name == options_name) {
      int size = static_cast<int>(launch.options.size());
      arrays.push_back({Kind::options, i, name, size});
      continue;
    }
    if (body.find(name + "_shape") != body.npos) {
      arrays.push_back({Kind::shape, i, name + "_shape", ndim});
    }
    if (body.find(name + "_strides") != body.npos) {
      arrays.push_back({Kind::strides, i, name + "_strides", ndim});
    }
  }
  return arrays;
}

// Appends to the parameters, and to the body the array with its name.
void add(const SmallArray& array, Names& parameters, std::string& body) {
  bool wide = array.kind == Kind::strides;
  body += wide ? "const int64_t " : "const int ";
  body += array.name + "[] = {";
  for (int k = 0; k < array.size; ++k) {
    auto element = array.name + "_" + std::to_string(k);
    if (wide) {
      auto low = element + "_low";
      auto high = element + "_high";
      parameters.push_back("uint32_t " + low);
      parameters.push_back("uint32_t " + high);
      body.append("stride_of(").append(low).append(", ");
      body.append(high).append("), ");
    } else {
      parameters.push_back("int " + element);
      body += element + ", ";
    }
  }
  body += "};\n";
}

} // namespace

std::string cuda_text(const Launch& launch, const std::string& function) {
  Names parameters;
  for (size_t i = 0; i < launch.inputs.size(); ++i) {
    if (launch.inputs[i] != options_name) {
      auto type = name_of(launch.parameters[i].type);
      parameters.push_back(
          std::string("const ") + type + "* " + launch.inputs[i]);
    }
  }
  for (const auto& output : launch.outputs) {
    parameters.push_back(
        std::string(name_of(output.type)) + "* " + output.name);
  }
  std::string body;
  for (const auto& [name, value] : launch.template_args) {
    body += declaration(name, value);
  }
  for (const auto& array : small_arrays(launch)) {
    add(array, parameters, body);
  }
  std::string signature;
  for (const auto& parameter : parameters) {
    signature += signature.empty() ? "" : ",\n";
    signature += parameter;
  }
  return std::string(text::cuda_types) + header(launch, Backend::cuda) +
      "extern \"C\" __global__ void " + function + "(\n" + signature + ") {\n" +
      body + launch.source + "\n}\n";
}

std::vector<int64_t> cuda_text_key(const Launch& launch) {
  std::vector<int64_t> key = {
      reinterpret_cast<intptr_t>(launch.source),
      launch.max_threads,
      launch.resident};
  for (const auto& [name, value] : launch.template_args) {
    key.push_back(
        std::visit([](auto v) { return static_cast<int64_t>(v); }, value));
  }
  for (const auto& parameter : launch.parameters) {
    key.push_back(static_cast<int64_t>(parameter.type));
    key.push_back(parameter.ndim);
  }
  return key;
}

std::vector<int> cuda_scalars(
    const Launch& launch,
    const std::vector<Layout>& layouts) {
  std::vector<int> scalars;
  for (const auto& array : small_arrays(launch)) {
    if (array.kind == Kind::options) {
      scalars.insert(
          scalars.end(), launch.options.begin(), launch.options.end());
    } else if (array.kind == Kind::shape) {
      const auto& shape = layouts[array.input].shape;
      scalars.insert(scalars.end(), shape.begin(), shape.end());
    } else {
      for (int64_t stride : layouts[array.input].strides) {
        scalars.push_back(static_cast<int>(stride));
        scalars.push_back(static_cast<int>(stride >> 32));
      }
    }
  }
  return scalars;
}

} // namespace mlx_ctc::gpu
