"""Protobuf <-> domain: the one place that knows both, beside the gRPC server itself."""
