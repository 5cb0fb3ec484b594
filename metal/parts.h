// Targets longer than PART labels, whose gammas do not fit in threadgroup
// memory, are processed in parts. The first part writes the rows of the
// gradient (rows.h), and each further one subtracts its gammas from them.

#include "rows.h"

// Subtracts the gammas of one part: those of each of its classes, and the
// blanks. The first label of each class has a thread that adds up the class.
template <typename Element, typename Scores, typename Sequence>
METAL_FUNC void subtract_part(
    Rows<Element, Scores> rows,
    thread const Sequence& sequence,
    Part part,
    Device<const uint16_t> label_of_rank, // of the sequence
    Threads self) {
  const int labels = part.end - part.begin;
  for (int k = self.index; k <= labels; k += self.count) {
    const bool is_label = k < labels;
    int y = rows.blank;
    if (is_label) {
      y = sequence.class_of_label(part.begin + label_of_rank[part.begin + k]);
    }
    const Ranks of_class = unpack_ranks(rows.classes[y]);
    const bool is_first = is_label && k == of_class.begin;
    // The blank's class may have labels; then the first of them adds the
    // blanks.
    const bool is_only_blank = !is_label && of_class.begin == of_class.end;
    if (is_first || is_only_blank) {
      for (int f = 0; f < rows.count_with_paths; ++f) {
        const Device<Element> to = rows.element(f, y);
        float value[1] = {float(*to)};
        subtract_gammas<1, 1, true>(value, rows, f, y, of_class);
        *to = Element(value[0]);
      }
    }
  }
}
