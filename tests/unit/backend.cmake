galley_unit(unit_backend SOURCES backend.c LIBS galley_backend)
galley_unit(unit_backend_pool SOURCES backend_pool.c LIBS galley_backend)
