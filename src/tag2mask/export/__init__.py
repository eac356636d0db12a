"""The segmenter leaves the house: ONNX and PyTorch files, a predictor without PyTorch, a hub.

Like the command line, this room stands above the others, and may import them.
"""
