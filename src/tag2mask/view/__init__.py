"""`tag2mask view`: a local page over a run, finished or not, and corrections made on it."""

from tag2mask.view.serve import serve

__all__ = ["serve"]
