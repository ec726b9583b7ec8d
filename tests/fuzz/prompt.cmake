galley_fuzz(prompt LIBS galley_engine)
