galley_fuzz(control SOURCES supervisor/control.c LIBS galley_proto galley_common)
