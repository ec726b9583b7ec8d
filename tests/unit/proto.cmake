galley_unit(proto_wire SOURCES unit/proto_wire.c LIBS galley_proto)
galley_unit(proto_sockets SOURCES unit/proto_sockets.c LIBS galley_proto LIMIT 240)
galley_unit(proto_client SOURCES unit/proto_client.c LIBS galley_proto)
