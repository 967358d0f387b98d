"""What actors run. The only part of Headrace that imports torch, and never before it must."""
