"""Photos and pseudo masks to a segmentation network and its predictions."""
