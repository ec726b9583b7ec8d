galley_fuzz(config LIBS galley_common)
