galley_fuzz(safetensors LIBS galley_engine)
