"""Tags to clusters: groups of tags that share something."""

from tag2mask.clusters.make import PRESETS, make_clusters
from tag2mask.clusters.membership import Clusters, cluster_vector, load_clusters, membership

__all__ = ["PRESETS", "Clusters", "cluster_vector", "load_clusters", "make_clusters", "membership"]
