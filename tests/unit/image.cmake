galley_unit(unit_image SOURCES image.c LIBS galley_image)
