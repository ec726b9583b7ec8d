foreach(module base config log loop paths subprocess)
  galley_unit(unit_common_${module} SOURCES common_${module}.c LIBS galley_common)
endforeach()
