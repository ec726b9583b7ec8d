# A disk that is slow or refuses, for tests/farm/test_slow_disk.py. Not under sanitizers: their runtime wants to be loaded first.
if(NOT GALLEY_FUZZ AND NOT GALLEY_SANITIZE)
  add_library(slow_sync MODULE ${CMAKE_CURRENT_LIST_DIR}/slow_sync.c)
  target_link_libraries(slow_sync PRIVATE ${CMAKE_DL_LIBS})
  set_target_properties(slow_sync PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
endif()
