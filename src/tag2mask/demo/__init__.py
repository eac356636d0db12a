"""The demo's scenes, made by code."""
