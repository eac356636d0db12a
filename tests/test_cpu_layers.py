"""Folded batch norms and the faster gradient: the same numbers as PyTorch's own layers."""

import copy

import pytest
import torch
from torch import nn

from tag2mask.cpu_layers import FoldedConv, FoldedNorm, fold_norms
from tag2mask.weights import create_backbone


def trained(net):
    """The network with norms like those of a trained one."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return net.eval()


def create(name):
    return trained(create_backbone(name, "none", features_only=True, output_stride=16)[0])


def gradients(net, photos):
    """Maps, and the gradient of each parameter and of the photos."""
    photos = photos.clone().requires_grad_()
    maps = net(photos)
    torch.manual_seed(1)
    sum((m * torch.rand_like(m)).mean() for m in maps).backward()
    named = {name: p.grad for name, p in net.named_parameters()}
    return [m.detach() for m in maps], named | {"photos": photos.grad}


def relative(a, b):
    a, b = a.detach(), b.detach()
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18", "mobilenetv3_small_050"])
def test_maps_and_gradients_are_those_of_the_network(name):
    plain = create(name)
    net = copy.deepcopy(plain)
    fold_norms(net)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert sum(isinstance(m, FoldedNorm) for m in norms) == len(norms)
    if name == "tf_efficientnet_lite0":
        assert sum(getattr(m, "has_slow_gradient", False) for m in net.modules()) == 4
    assert net.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), plain.buffers(), strict=True))
    torch.manual_seed(0)
    photos = torch.rand(2, 3, 96, 80).contiguous(memory_format=torch.channels_last)
    maps, grads = gradients(net, photos)
    same_maps, same_grads = gradients(plain, photos)
    assert max(map(relative, maps, same_maps)) < 1e-4
    assert grads.keys() == same_grads.keys()
    # A value at the corner of a ReLU6 is rounded to either side, which changes a few gradients.
    off = sorted(relative(grads[k], same_grads[k]) for k in grads)
    assert off[len(off) // 2] < 1e-3 and off[-1] < 0.05


def test_a_copy_uses_its_own_norms():
    net = create("resnet18")
    fold_norms(net)
    twin, photos = copy.deepcopy(net), torch.rand(1, 3, 64, 64)
    before = net(photos)[-1]
    for norm in twin.modules():
        if isinstance(norm, FoldedNorm):
            norm.running_mean += 1
    assert torch.equal(net(photos)[-1], before)
    assert relative(twin(photos)[-1], before) > 0.01


class ReadTwice(nn.Module):
    """The output of the convolution also goes around the norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.conv(x)
        return [x + self.norm(x)]


def test_an_output_that_is_read_twice_stays():
    net = ReadTwice()
    fold_norms(net)
    assert (type(net.conv), type(net.norm)) == (nn.Conv2d, nn.BatchNorm2d)
    assert not net.norm.running_mean.any()


def test_a_norm_in_training_computes_its_statistics():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    plain = copy.deepcopy(net)
    fold_norms(nn.Sequential(net))
    assert isinstance(net[0], FoldedConv)
    photos = torch.rand(2, 3, 8, 8)
    assert torch.equal(net.train()(photos), plain.train()(photos))
    assert torch.equal(net[1].running_mean, plain[1].running_mean)
