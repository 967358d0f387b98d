"""Pods that jobs have for themselves: those with an image, secrets or claims of their own."""
