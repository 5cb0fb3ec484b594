// A target's labels: which of them may follow the label before without a blank,
// and which classes they are.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "lattice/sequence.h"
#include "lattice/workspace.h"

namespace mlx_ctc::cpu::MLX_CTC_ISA {

// Whether label i may follow label i - 1 without a blank: between equal labels
// the blank cannot be skipped.
inline bool may_skip_blank(const Sequence& sequence, int64_t i) {
  const int32_t* labels = sequence.labels;
  return i > 0 && i < sequence.target_length && labels[i] != labels[i - 1];
}

// The classes of a target, the blank among them. What is read or summed for a
// class is then done once for all of its labels.
class TargetClasses {
 public:
  // `labels`: how long index_of_label is, at least as long as the target.
  TargetClasses(const Sequence& sequence, int64_t labels, Workspace& workspace)
      : classes(workspace.take<int32_t>(sequence.classes)),
        index_of_label(workspace.take<int32_t>(labels)),
        sequence_(sequence),
        index_of_class_(workspace.take<int32_t>(sequence.classes)) {}

  // Lists the classes that occur, each once.
  void list() {
    std::fill_n(index_of_class_, sequence_.classes, -1);
    count = 0;
    index_of_blank = add(sequence_.blank);
    for (int64_t i = 0; i < sequence_.target_length; ++i) {
      index_of_label[i] = add(sequence_.labels[i]);
    }
  }

  // Lists all classes: each has its own index.
  void list_all() {
    count = sequence_.classes;
    std::iota(classes, classes + count, 0);
    index_of_blank = sequence_.blank;
    std::copy_n(sequence_.labels, sequence_.target_length, index_of_label);
  }

  int64_t count = 0;
  int32_t* const classes; // (count)
  int32_t* const index_of_label; // (target_length) in `classes`
  int32_t index_of_blank = 0;

 private:
  // The index of class c in the list, to which it is added if it is new.
  int32_t add(int32_t c) {
    int32_t& found = index_of_class_[c];
    if (found < 0) {
      found = count;
      classes[count++] = c;
    }
    return found;
  }

  const Sequence& sequence_;
  int32_t* const index_of_class_; // (sequence.classes), -1 where not listed
};

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
