# The conformance suite of the backends. Sweeps are for optimised builds: the reference takes minutes without.
if(NOT GALLEY_FUZZ)
  galley_sources(ops_sources main.c cases.c fixture.c)
  add_executable(galley-ops ${ops_sources})
  target_link_libraries(galley-ops PRIVATE galley_backend)
  set_target_properties(galley-ops PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
  galley_test(ops_cpu 120 galley-ops)
  galley_test(ops_cpu_plain 120 galley-ops)
  set_property(TEST ops_cpu_plain APPEND PROPERTY ENVIRONMENT GALLEY_CPU_ISA=plain)
  foreach(dtype f32 f16 bf16)    # on the simulated GPU
    if(GALLEY_CUDA_FOUND)
      galley_test(ops_cuda_${dtype} 300 galley-ops --device cuda:0 --dtype ${dtype})
      set_property(TEST ops_cuda_${dtype} APPEND PROPERTY ENVIRONMENT LD_LIBRARY_PATH=${CMAKE_BINARY_DIR}/vgpu VGPU_DEVICES=1)
      set_tests_properties(ops_cuda_${dtype} PROPERTIES SKIP_RETURN_CODE 99)    # it is there: no device is a failure
    else()
      galley_test(ops_cuda_${dtype} 10 sh -c "echo no CUDA toolkit && exit 77")
    endif()
  endforeach()
endif()
