"""Photos, tags and clusters to patch scores: the patch classifier of PPC and CPC."""

from tag2mask.classifier.find import find_unknown
from tag2mask.classifier.net import PatchClassifier, load_classifier, save_classifier
from tag2mask.classifier.train import train_classifier

__all__ = [
    "PatchClassifier",
    "find_unknown",
    "load_classifier",
    "save_classifier",
    "train_classifier",
]
