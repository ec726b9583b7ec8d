galley_fuzz(png LIBS galley_image)
