# One process from its start to its second picture, for tests/bench/gpu.
if(NOT GALLEY_FUZZ)
  add_executable(galley-speed ${CMAKE_CURRENT_LIST_DIR}/gpu_speed.c)
  target_link_libraries(galley-speed PRIVATE galley_engine galley_backend galley_common ${CMAKE_DL_LIBS} m)
endif()
