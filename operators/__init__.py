"""What runs beside a Kubernetes API server: custom resources and who keeps them."""
