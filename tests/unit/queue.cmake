foreach(module contract walk plan store)
  galley_unit(unit_queue_${module} SOURCES queue_${module}.c LIBS galley_queue PkgConfig::SQLITE)
endforeach()
galley_unit(unit_queue_power SOURCES queue_power.c LIBS galley_queue PkgConfig::SQLITE LIMIT 180)
