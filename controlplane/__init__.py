"""Headrace's server side: everything that decides, stores and serves."""
