"""Photos and pseudo masks to a segmentation network, DeepLabV2, and its predictions."""
