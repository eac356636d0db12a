"""Photos, tags and clusters to patch scores: the patch classifier of PPC and CPC."""

from tag2mask.classifier.net import PatchClassifier, load_classifier, save_classifier
from tag2mask.classifier.train import train_classifier

__all__ = ["PatchClassifier", "load_classifier", "save_classifier", "train_classifier"]
