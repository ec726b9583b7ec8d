foreach(module contract walk plan store power)
  galley_unit(unit_queue_${module} SOURCES queue_${module}.c LIBS galley_queue PkgConfig::SQLITE)
endforeach()
