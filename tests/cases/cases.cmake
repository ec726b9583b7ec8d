# The case runner, beside the programs because galley.sh starts it, and its run on our own data.
add_executable(galley-cases ${CMAKE_CURRENT_LIST_DIR}/main.c ${CMAKE_CURRENT_LIST_DIR}/compare.c ${CMAKE_CURRENT_LIST_DIR}/case_graph.c
  ${CMAKE_CURRENT_LIST_DIR}/case_fields.c ${CMAKE_CURRENT_LIST_DIR}/case_batch.c ${CMAKE_CURRENT_LIST_DIR}/case_queue.c)
target_compile_definitions(galley-cases PRIVATE TEST_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
target_link_libraries(galley-cases PRIVATE galley_queue galley_nodes galley_engine galley_image galley_backend galley_graph galley_common m)
set_target_properties(galley-cases PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
galley_test(cases 120 galley-cases ${CMAKE_CURRENT_LIST_DIR}/data)
