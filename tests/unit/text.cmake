galley_unit(unit_sampling SOURCES text_sampling.c LIBS galley_engine PkgConfig::JANSSON)
galley_unit(unit_prompt SOURCES text_prompt.c LIBS galley_engine)
