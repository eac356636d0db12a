"""Top-k pooling and the losses of the patch classifier, as pure functions; at the end their sum.

B images, N patches, C classes (background 0), D width. Labels are 1 for a class that is present, 0
for one that is absent, and NaN for an unknown one, which no loss counts.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag2mask.classifier.net import patch_scores
from tag2mask.classifier.views import second_view
from tag2mask.config import ClassifierSettings

PAPER_PATCHES = 24 * 24  # the grid for which the papers give k
SHORTEST = 1e-3  # shorter vectors have no reliable direction; an HV-BiLSTM's are about 1 long


def top_k_pool(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Patch logits (B, N, C) to log p and log (1 - p), (B, C) each. p is the mean of a class's k
    largest patch scores (PPC, CPC eq. 3); the scores are the softmax over classes (eq. 2).

    In logarithms, a p that would round to 0 or 1 keeps its gradient: a tag with very small scores
    in all patches needs it most. k = 1 is ViT-PCM's max pooling.
    """
    logits = logits.float()
    total = logits.logsumexp(-1, keepdim=True)
    log_z = logits - total
    first = logits.argmax(-1, keepdim=True)
    # Only the most likely class can have a score near 1, where 1 - z is inexact. For that class,
    # 1 - z is computed as the sum of the other scores.
    others = logits.scatter(-1, first, -torch.inf).logsumexp(-1, keepdim=True) - total
    log_not_z = torch.log1p(-log_z.scatter(-1, first, -torch.inf).exp()).scatter(-1, first, others)
    best = log_z.topk(min(k, logits.shape[1]), dim=1)
    count = math.log(best.indices.shape[1])
    return best.values.logsumexp(1) - count, log_not_z.gather(1, best.indices).logsumexp(1) - count


def pooled_patches(top_k: int, patches: int) -> int:
    """k of `top_k_pool` on this number of patches.

    # Differs from CPC, which gives k for 24 x 24 patches: it is scaled with the number of patches.
    k = 1, ViT-PCM's max pooling, stays 1.
    """
    return 1 if top_k == 1 else max(1, round(top_k * patches / PAPER_PATCHES))


def mce(log_p: Tensor, log_not_p: Tensor, labels: Tensor) -> Tensor:
    """Multi-label classification error: mean BCE over images and classes (PPC eq. 4, CPC eq. 7).

    log_p and log_not_p of `top_k_pool` and labels, all (B, C), to a scalar. The label of background
    is always 1.

    # Differs from CPC, where all labels are known: the mean is over the known ones.
    """
    present, absent = (labels == 1).float(), (labels == 0).float()
    return -(present * log_p + absent * log_not_p).mean() / _share(present + absent)


def _share(known: Tensor) -> Tensor:
    """The share of ones in a tensor of 0 and 1; exactly 1 if all are 1."""
    return known.sum().clamp(min=1) / known.numel()


def pce(features: Tensor, scores: Tensor, labels: Tensor, threshold: float = 0.85) -> Tensor:
    """Patch contrastive error, summed over classes and averaged over images (CPC eqs. 4-6, 8).

    Features (B, N, D), scores (B, N, C), labels (B, C) to a scalar. High patches of class c have
    Z_c > threshold, low ones Z_c < 1 - threshold. The double sums of eq. 6 over pairs of unit
    vectors f collapse to sums over patches, O(N D C) instead of O(N^2 D C):
    sum_{i != j} f_i.f_j = |sum f_high|^2 - sum |f_high|^2, and
    sum_{m, n} f_m.f_n = (sum f_high).(sum f_low).
    A vector shorter than 1e-3 is divided by 1e-3, which bounds the gradient.

    # Differs from CPC: only the classes of the image and background are summed. For an absent
    class, nearly every patch is low, and a high patch is a mistake that MCE already penalizes. An
    unknown class is not summed either: whether its patches are mistakes, nobody knows.
    """
    labels = (labels == 1).float()
    f = F.normalize(features.float(), dim=-1, eps=SHORTEST)
    z = scores.detach().float()
    high = (z > threshold).float() * labels[:, None]  # (B, N, C)
    low = (z < 1 - threshold).float() * labels[:, None]
    n_high, n_low = high.sum(1), low.sum(1)  # (B, C)
    # The attraction is a difference of large sums, which bf16 would lose
    with torch.autocast(features.device.type, enabled=False):
        sum_high = torch.einsum("bnc,bnd->bcd", high, f)
        own = torch.einsum("bnc,bn->bc", high, f.square().sum(-1))
        sum_low = torch.einsum("bnc,bnd->bcd", low, f)
    pairs_pos, pairs_neg = n_high * (n_high - 1), n_high * n_low
    cos_pos = (sum_high.square().sum(-1) - own) / pairs_pos.clamp(min=1)  # mean cosine of the pairs
    cos_neg = (sum_high * sum_low).sum(-1) / pairs_neg.clamp(min=1)
    attract = torch.where(pairs_pos > 0, 1 - (1 + cos_pos) / 2, 0.0)
    repel = torch.where(pairs_neg > 0, (1 + cos_neg) / 2, 0.0)
    return (attract + repel).sum(1).mean()


def mean_logit_bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Multi-label BCE on the mean logit of each tag over all patches, the loss of CAM (Zhou et al.
    2016): (B, N, C), (B, C) -> scalar. Without background.

    # Differs from CPC: neither paper has this loss. Eq. 3 trains only k patches per class; the mean
    lowers absent tags in all patches. Both together: docs/research/what-holds-masks-back.md. The
    mean is over known labels.
    """
    mean_logits, labels = logits[..., 1:].float().mean(1), labels[:, 1:]
    known = (~labels.isnan()).float()
    loss = F.binary_cross_entropy_with_logits(mean_logits, labels.nan_to_num(0), known)
    return loss / _share(known)


def possible_scores(scores: Tensor, labels: Tensor) -> Tensor:
    """The target of `equivariance`: scores (B, h, w, C) without those of absent classes (labels
    (B, C)), each patch summing to 1 again.

    # Differs from CPC, which does not have this loss, and from ViT-PCM, where all labels are known:
    an unknown class keeps its score. So the loss asks for the same score in both views, and says
    neither that the class is in the photo nor that it is not.
    """
    target = scores * (labels != 0)[:, None, None]
    return target / target.sum(-1, keepdim=True).clamp(min=1e-6)


def equivariance(scores: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the scores of a transformed view against the transformed scores of the first
    (ViT-PCM's ET loss): (B, h, w, C), (B, h, w, C) -> scalar.

    The target is that of `possible_scores` and has no gradient.
    """
    return -(target * scores.float().clamp(min=1e-6).log()).sum(-1).mean()


def classifier_loss(
    net: nn.Module, batch: tuple[Tensor, Tensor, Tensor], settings: ClassifierSettings
) -> dict[str, Tensor]:
    """The total loss (CPC eq. 8) and its parts, from photos (B, 3, S, S), labels (B, num_tags) and
    cluster vectors (B, L). Labels are those of `Table.labels`."""
    images, tags, u = batch
    labels = torch.cat([torch.ones_like(tags[:, :1]), tags], 1)  # background is in every photo
    if settings.cluster_dropout:
        u = u * (torch.rand(len(u), 1, device=u.device) >= settings.cluster_dropout)
    logits, features = net(images, u)  # (B, h, w, C), (B, h, w, D)
    scores = patch_scores(logits)
    flat = scores.flatten(1, 2)
    parts: dict[str, Tensor] = {}
    if settings.tag_loss != "mean":
        k = pooled_patches(settings.top_k, flat.shape[1])
        parts["mce"] = mce(*top_k_pool(logits.flatten(1, 2), k), labels)
    if settings.tag_loss != "top_k":
        parts["mean_logit"] = mean_logit_bce(logits.flatten(1, 2), labels)
    total = sum(parts.values(), torch.zeros((), device=logits.device))
    if settings.pce_weight:
        parts["pce"] = pce(features.flatten(1, 2), flat, labels, settings.pce_threshold)
        total = total + settings.pce_weight * parts["pce"]
    if settings.equivariance_weight:
        views, targets = second_view(images, possible_scores(scores, labels))
        # A tile shows four photos, so it has the clusters of all four.
        four = torch.arange(len(views) * 4, device=u.device) % len(u)
        tiled = u[four].view(len(views), 4, -1).amax(1)
        parts["equivariance"] = equivariance(patch_scores(net(views, tiled)[0]), targets.detach())
        total = total + settings.equivariance_weight * parts["equivariance"]
    if settings.classifier_l2:
        unwrapped: Any = getattr(net, "module", net)  # DDP wraps the network
        parts["l2"] = unwrapped.classifier.weight.square().sum()
        total = total + settings.classifier_l2 * parts["l2"]
    return {"loss": total, **parts}
