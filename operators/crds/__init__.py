"""The custom resources, generated from the schema of the manifests."""
