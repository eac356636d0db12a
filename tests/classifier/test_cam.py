"""With token and mixer off, mean pooling is CAM: the logit maps equal those of another
implementation."""

import torch
from torch import nn
from torchcam.methods import CAM

from tag2mask.classifier.net import PatchClassifier
from tag2mask.config import ClassifierSettings


class PooledClassifier(nn.Module):
    """The same network as image classifiers have it: maps (B, D, h, w), global average, one
    layer."""

    def __init__(self, net: PatchClassifier):
        super().__init__()
        self.net, self.maps = net, nn.Identity()

    def forward(self, image):
        tokens, _ = self.net.backbone(image)
        return self.net.classifier(self.maps(tokens.permute(0, 3, 1, 2)).mean((2, 3)))


def test_positive_logits_are_cam():
    torch.manual_seed(0)
    settings = ClassifierSettings(
        backbone="test_efficientnet", weights="none", token="none", mixer="none", image_size=64
    )
    net = PatchClassifier(settings, 4, 3).eval()
    image = torch.rand(1, 3, 64, 96)
    with CAM(
        pooled := PooledClassifier(net).eval(), target_layer="maps", fc_layer="net.classifier"
    ) as extract:
        logits = pooled(image)
        (theirs,) = extract(2, logits, normalized=False)
    ours = net.scores(image, torch.zeros(1, 0), logits=True)[0][0, 2]
    assert theirs.squeeze().shape == ours.shape
    assert torch.allclose(theirs.squeeze().relu(), ours, atol=1e-5) and ours.max() > 0
    assert torch.allclose(net(image, torch.zeros(1, 0))[0].mean((1, 2)), logits, atol=1e-5)
