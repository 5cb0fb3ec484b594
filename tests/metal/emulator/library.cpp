#include "library.h"

#include <link.h>

#include <algorithm>

namespace emulator {

namespace {

struct Search {
  const void* code;
  Library found;
};

int visit(dl_phdr_info* info, size_t, void* argument) {
  auto search = static_cast<Search*>(argument);
  Library library = {info->dlpi_addr, info->dlpi_addr};
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    auto& segment = info->dlpi_phdr[i];
    if (segment.p_type == PT_LOAD) {
      library.end = std::max<uintptr_t>(
          library.end, info->dlpi_addr + segment.p_vaddr + segment.p_memsz);
    }
  }
  if (!library.contains(search->code)) {
    return 0;
  }
  search->found = library;
  return 1; // ends the search
}

} // namespace

Library library_of(const void* code) {
  Search search = {code, {}};
  dl_iterate_phdr(visit, &search);
  return search.found;
}

} // namespace emulator
