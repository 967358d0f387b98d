"""The public vocabulary: manifests, the execution plan and the generated gRPC stubs."""
