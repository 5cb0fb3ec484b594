# cmake -DNM=nm -DISA=x86_64_v3 "-DOBJECTS=a.o;b.o" -P check_weak_symbols.cmake
#
# Fails if an object defines a weak symbol whose name does not have the namespace
# of its instruction set, as functions of the standard library do not. Of several
# weak definitions of one name the linker keeps one for all objects: one with an
# instruction set's instructions would also run on machines without it.
cmake_minimum_required(VERSION 3.25)

foreach(object IN LISTS OBJECTS)
  execute_process(
    COMMAND "${NM}" -C "${object}"
    OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  # Weak functions, weak variables, and GNU's unique ones.
  string(REGEX MATCHALL "[0-9a-f]+ [WVu] [^\n]*" weak "${symbols}")
  list(FILTER weak EXCLUDE REGEX "::${ISA}::")
  if(weak)
    string(REPLACE ";" "\n  " weak "${weak}")
    message(FATAL_ERROR "${object} defines weak symbols that are not in a "
                        "namespace ${ISA}:\n  ${weak}")
  endif()
endforeach()
