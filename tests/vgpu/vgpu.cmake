# The simulated GPU: build/PRESET/vgpu in LD_LIBRARY_PATH gives a program VGPU_DEVICES devices. Built with the toolkit's headers, linked with none of its
# libraries; always optimised, or a picture would take minutes.
if(NOT GALLEY_CUDA_FOUND OR GALLEY_FUZZ)
  if(NOT GALLEY_FUZZ AND NOT GALLEY_SANITIZE)
    galley_test(unit_vgpu 10 sh -c "echo no CUDA toolkit && exit 77")
  endif()
  return()
endif()
set(vgpu_here ${CMAKE_CURRENT_LIST_DIR})
set(vgpu_folder ${CMAKE_BINARY_DIR}/vgpu)

# vgpu_library(TARGET FILE EXPORTS source...): the shared library FILE (its SONAME, and the version of its symbols, as the real one's). EXPORTS: patterns.
function(vgpu_library target file exports)
  set(there ${ARGN})
  list(TRANSFORM there PREPEND ${vgpu_here}/ REGEX "^[^/]")
  set(map ${CMAKE_CURRENT_BINARY_DIR}/${target}.map)
  file(CONFIGURE OUTPUT ${map} CONTENT "${exports}" @ONLY)
  string(REGEX MATCH "^[a-zA-Z]+" name ${file})
  string(REGEX REPLACE "^[a-zA-Z]+" "" suffix ${file})
  add_library(${target} SHARED ${there})
  set_target_properties(${target} PROPERTIES PREFIX "" OUTPUT_NAME ${name} SUFFIX ${suffix} LIBRARY_OUTPUT_DIRECTORY ${vgpu_folder} LINK_DEPENDS ${map}
    BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "\$ORIGIN")
  target_include_directories(${target} SYSTEM PRIVATE ${CUDA_INCLUDES})
  target_compile_options(${target} PRIVATE -O2)
  target_link_options(${target} PRIVATE -Wl,--version-script=${map} -Wl,--no-undefined -Wl,--enable-new-dtags)
  target_link_libraries(${target} PRIVATE galley_backend Threads::Threads m)
endfunction()

vgpu_library(vgpu-cuda libcuda.so.1 "{ global: cu*; vgpu_*; local: *; };" driver.c memory.c stream.c graph.c faults.c kernels.c ${CMAKE_SOURCE_DIR}/kernels/kernels.cu)
vgpu_library(vgpu-cublaslt ${CUDA_CUBLASLT_SONAME} "${CUDA_CUBLASLT_SONAME} { global: cublasLt*; local: *; };" cublaslt.c)
vgpu_library(vgpu-cudnn ${CUDA_CUDNN_SONAME} "${CUDA_CUDNN_SONAME} { global: cudnn*; local: *; };" cudnn.c cudnn_run.c)
# The kernels of the GPU as C of the host.
set_source_files_properties(${CMAKE_SOURCE_DIR}/kernels/kernels.cu PROPERTIES LANGUAGE C COMPILE_OPTIONS "-xc;-O3"
  COMPILE_DEFINITIONS GALLEY_KERNELS_ON_HOST=1)
target_link_libraries(vgpu-cublaslt PRIVATE vgpu-cuda)
target_link_libraries(vgpu-cudnn PRIVATE vgpu-cuda)
add_custom_target(vgpu DEPENDS vgpu-cuda vgpu-cublaslt vgpu-cudnn)

# The simulated driver by itself.
add_executable(unit_vgpu ${vgpu_here}/test_driver.c)
target_include_directories(unit_vgpu SYSTEM PRIVATE ${CUDA_INCLUDES})
target_link_libraries(unit_vgpu PRIVATE vgpu-cuda Threads::Threads)
galley_test(unit_vgpu 120 unit_vgpu)
