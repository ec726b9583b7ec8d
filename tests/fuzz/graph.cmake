galley_fuzz(graph LIBS galley_graph)
