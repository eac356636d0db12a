"""HV-BiLSTM: each row and column of the patch grid, read in both directions (ViT-PCM; PPC II.A, CPC
3.3). B images, h x w patches, D width."""

import torch
from torch import Tensor, nn


class HVBiLSTM(nn.Module):
    """Patch tokens to tokens that know their row and column: (B, h, w, D) -> (B, h, w, D).

    One bidirectional LSTM is shared by all rows, another by all columns. Each has D / 4 units per
    direction: the two concatenated outputs have the width of the input, as the papers ask. No
    residual, no norm, no projection.
    """

    def __init__(self, dim: int):
        super().__init__()
        assert dim % 4 == 0, f"width {dim} must be a multiple of 4: two LSTMs of two directions"
        self.rows = nn.LSTM(dim, dim // 4, bidirectional=True, batch_first=True)
        self.columns = nn.LSTM(dim, dim // 4, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        B, h, w, D = x.shape
        # PyTorch runs cuDNN's LSTMs in fp16 under bf16 too, where small gradients become 0
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            rows, _ = self.rows(x.reshape(B * h, w, D))  # (B*h, w, D/2)
            columns, _ = self.columns(x.transpose(1, 2).reshape(B * w, h, D))  # (B*w, h, D/2)
        columns = columns.reshape(B, w, h, D // 2).transpose(1, 2)
        return torch.cat([rows.reshape(B, h, w, D // 2), columns], -1)


class ResidualHVBiLSTM(nn.Module):
    """HV-BiLSTM added to its input by a gate per channel that starts at 0: (B, h, w, D) -> same.

    # Differs from CPC: its HV-BiLSTM must encode every token anew, too much for a thousand photos.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.mixer = HVBiLSTM(dim)
        self.gate = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gate * self.mixer(x)
