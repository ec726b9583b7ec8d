galley_fuzz(frames LIBS galley_proto)
