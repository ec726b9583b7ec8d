# Fixture models, made in the build tree when a test first asks for one.
add_library(golden_fixture STATIC ${CMAKE_CURRENT_LIST_DIR}/fixture.c ${CMAKE_CURRENT_LIST_DIR}/fixture_model.c)
target_include_directories(golden_fixture PUBLIC ${CMAKE_SOURCE_DIR}/tests)
target_compile_definitions(golden_fixture PRIVATE FIXTURE_SOURCES="${CMAKE_CURRENT_LIST_DIR}/data/fixtures" FIXTURE_MADE="${CMAKE_BINARY_DIR}/fixtures"
  SHIPPED_MODELS="${CMAKE_SOURCE_DIR}/models")
target_link_libraries(golden_fixture PUBLIC galley_engine galley_common m)
add_executable(galley-fixture ${CMAKE_CURRENT_LIST_DIR}/fixture_main.c)
target_link_libraries(galley-fixture PRIVATE golden_fixture)
