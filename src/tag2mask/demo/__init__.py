"""The demo's generated scenes."""
