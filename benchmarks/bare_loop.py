"""The classifier's training without tag2mask's: a plain loop over timm's network, as one writes it.

`speed.py` starts it with the folder of a run. It trains on the photos of that run, with its
settings: the same backbone, LSTMs and classifier, the same steps, photos read in the loop, flip and
color, CAM's loss. Its last line: [seconds of the clock, seconds of all cores].
"""

import json
import resource
import sys
import time

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from tag2mask.runs.run import Run
from tag2mask.weights import create_backbone

from torchvision.transforms import v2  # isort: skip  after tag2mask, which loads it safely


class Photos:
    def __init__(self, table, side):
        self.paths, self.labels = [p.path for p in table.photos], torch.from_numpy(table.labels)
        self.transform = v2.Compose(
            [
                v2.Resize((side, side)),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(0.3, 0.3, 0.3),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
            ]
        )

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        return self.transform(Image.open(self.paths[i]).convert("RGB")), self.labels[i]


class Net(nn.Module):
    def __init__(self, settings, tags):
        super().__init__()
        options = {"features_only": True, "output_stride": 16}
        self.backbone, _ = create_backbone(settings.backbone, settings.weights, **options)
        width = self.backbone.feature_info.channels()[-1] + settings.token_width
        self.token = nn.Parameter(torch.randn(settings.token_width) * 0.02)
        sizes = (width, width // 4)
        self.rows = nn.LSTM(*sizes, bidirectional=True, batch_first=True)
        self.columns = nn.LSTM(*sizes, bidirectional=True, batch_first=True)
        self.gate = nn.Parameter(torch.zeros(width))
        self.dropout, self.classify = nn.Dropout(settings.dropout), nn.Linear(width, tags)

    def forward(self, x):
        x = self.backbone((x - 0.5) / 0.5)[-1].permute(0, 2, 3, 1)
        x = self.dropout(torch.cat([x, self.token.expand(*x.shape[:3], -1)], -1))
        B, h, w, D = x.shape
        rows = self.rows(x.reshape(B * h, w, D))[0].reshape(B, h, w, D // 2)
        columns = self.columns(x.transpose(1, 2).reshape(B * w, h, D))[0]
        columns = columns.reshape(B, w, h, D // 2).transpose(1, 2)
        x = x + self.gate * torch.cat([rows, columns], -1)
        return self.classify(self.dropout(x)).mean((1, 2))


def train(run):
    settings, table = run.config.classifier, run.table
    net = Net(settings, len(table.tags)).train().to(memory_format=torch.channels_last)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    net.backbone.requires_grad_(False)
    new = [p for p in net.parameters() if p.requires_grad]
    last = [p for b in net.backbone.blocks[-settings.trained_blocks :] for p in b.parameters()]
    photos = Photos(table, settings.image_size)
    for epoch in range(settings.num_epochs(len(table))):
        if epoch in (0, settings.frozen_epochs):
            for parameter in last:
                parameter.requires_grad_(epoch >= settings.frozen_epochs)
            optimizer = torch.optim.Adam([{"params": new}, {"params": last}], settings.lr)
        for x, y in DataLoader(photos, settings.batch_size, shuffle=True):
            x = x.contiguous(memory_format=torch.channels_last)
            loss = nn.functional.binary_cross_entropy_with_logits(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def seconds():
    use = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), use.ru_utime + use.ru_stime


if __name__ == "__main__":
    before = seconds()
    train(Run(sys.argv[1]))
    print(json.dumps([now - then for now, then in zip(seconds(), before, strict=True)]))
