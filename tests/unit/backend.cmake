galley_unit(unit_backend SOURCES backend.c LIBS galley_backend)
