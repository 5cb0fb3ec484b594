# cmake -DNM=nm "-DOBJECTS=a.o;b.o" -P check_weak_symbols.cmake
#
# Fails if an object defines a weak symbol, as functions of the standard library
# and inline functions outside unnamed namespaces are. Of several such
# definitions the linker keeps one for all objects: one with an instruction
# set's instructions would also run on machines without it.
cmake_minimum_required(VERSION 3.25)

foreach(object IN LISTS OBJECTS)
  execute_process(
    COMMAND "${NM}" -C "${object}"
    OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  # Weak functions, weak variables, and GNU's unique ones.
  string(REGEX MATCHALL "[0-9a-f]+ [WVu] [^\n]*" weak "${symbols}")
  if(weak)
    string(REPLACE ";" "\n  " weak "${weak}")
    message(FATAL_ERROR "${object} defines weak symbols:\n  ${weak}")
  endif()
endforeach()
