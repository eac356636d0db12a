"""HV-BiLSTM: LSTMs over the rows and columns of the patch grid, in both directions.

ViT-PCM; PPC II.A, CPC 3.3. B images, h x w patches, D width.
"""

import torch
from torch import Tensor, nn


class HVBiLSTM(nn.Module):
    """Patch tokens to tokens with the context of their row and column: (B, h, w, D) -> the same.

    One bidirectional LSTM is shared by all rows, another by all columns. Each has D / 4 units per
    direction, so the two outputs, concatenated, have the width of the input, as in the papers. No
    residual, no norm, no projection.
    """

    def __init__(self, dim: int):
        super().__init__()
        assert dim % 4 == 0, f"width {dim} must be a multiple of 4: two LSTMs of two directions"
        self.rows = nn.LSTM(dim, dim // 4, bidirectional=True, batch_first=True)
        self.columns = nn.LSTM(dim, dim // 4, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        B, h, w, D = x.shape
        # PyTorch runs cuDNN's LSTMs in fp16 also under bf16; in fp16 small gradients become 0
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            rows, _ = self.rows(x.reshape(B * h, w, D))  # (B*h, w, D/2)
            columns, _ = self.columns(x.transpose(1, 2).reshape(B * w, h, D))  # (B*w, h, D/2)
        columns = columns.reshape(B, w, h, D // 2).transpose(1, 2)
        return torch.cat([rows.reshape(B, h, w, D // 2), columns], -1)


class ResidualHVBiLSTM(nn.Module):
    """HV-BiLSTM added to its input through a gate per channel, initially 0: (B, h, w, D) -> same.

    # Differs from CPC: there the HV-BiLSTM replaces every token, which a thousand photos are too
    few to learn.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.mixer = HVBiLSTM(dim)
        self.gate = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gate * self.mixer(x)
