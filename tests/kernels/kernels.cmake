# What ptxas said about the kernels when they were compiled.
if(GALLEY_CUDA_FOUND AND NOT GALLEY_FUZZ)
  galley_test(kernels_ptxas 30 python3 -B ${CMAKE_CURRENT_LIST_DIR}/check_ptxas.py ${CMAKE_BINARY_DIR}/kernels/ptxas.log)
elseif(NOT GALLEY_FUZZ AND NOT GALLEY_SANITIZE)
  galley_test(kernels_ptxas 10 sh -c "echo no CUDA toolkit && exit 77")
endif()
