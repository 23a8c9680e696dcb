"""The models of the gallery, as one would write them in PyTorch."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from models import char_lstm, vae
from models.vision_transformer import HEADS, PATCH, TOKENS, WIDTH


def images(pixels: Any, dtype: Any = torch.float32) -> torch.Tensor:
    """Pixels (N, 28, 28) uint8 -> (N, 1, 28, 28) in [0, 1]."""
    return (torch.from_numpy(pixels).to(dtype) / 255).unsqueeze(1)


def deep_convnet(depth: int = 6, p: float = 0.5) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *((nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()) if depth > 4 else ()),
        *((nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()) if depth > 5 else ()),
        *((nn.MaxPool2d(2),) if depth > 4 else ()),
        *(nn.Flatten(), nn.Linear(256 if depth > 4 else 512, 50), nn.ReLU(), nn.Dropout(p)),
        *(nn.Linear(50, 10), nn.Dropout(p)),
    )


def lenet() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10)),
    )


def mlp() -> nn.Sequential:
    layers = {"flat": nn.Flatten(), "hidden": nn.Linear(784, 100), "relu": nn.ReLU(), "drop": nn.Dropout(0.2)}
    return nn.Sequential(OrderedDict(**layers, out=nn.Linear(100, 10)))


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(ResidualBlock(16, 16, 1), ResidualBlock(16, 32, 2), ResidualBlock(32, 64, 2))
        self.out = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.blocks(torch.relu(self.norm(self.stem(x)))).mean(dim=(2, 3)))


class AttentionBlock(nn.Module):
    """With PyTorch's own attention: see `ATTENTION` for its names."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.narrow(nn.functional.gelu(self.wide(self.norm2(x))))


class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.places = nn.Linear(PATCH * PATCH, WIDTH), nn.Parameter(torch.zeros(TOKENS, WIDTH))
        self.blocks, self.norm = nn.Sequential(AttentionBlock(), AttentionBlock()), nn.LayerNorm(WIDTH)
        self.out = nn.Linear(WIDTH, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = nn.functional.unfold(x, PATCH, stride=PATCH).mT  # (N, TOKENS, PATCH * PATCH)
        return self.out(self.norm(self.blocks(self.embed(patches) + self.places)).mean(dim=1))


def attention_names(name: str) -> str:
    """Names of nn.MultiheadAttention for the two maps of a block of the vision transformer."""
    return name.replace("qkv.", "attention.in_proj_").replace("merge.", "attention.out_proj.")


class VAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode, self.code = nn.Linear(784, 400), nn.Linear(400, 2 * vae.LATENT)
        self.decode, self.pixels = nn.Linear(vae.LATENT, 400), nn.Linear(400, 784)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, _ = self.code(torch.relu(self.encode(x.flatten(1)))).chunk(2, dim=1)
        return self.pixels(torch.relu(self.decode(mean)))


class CharLSTM(nn.Module):
    def __init__(self, characters: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(characters, 32)
        self.gates = nn.Linear(32 + char_lstm.WIDTH, 4 * char_lstm.WIDTH)
        self.out = nn.Linear(char_lstm.WIDTH, characters)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        h = c = torch.zeros(len(text), char_lstm.WIDTH)
        outputs = []
        for x in self.embed(text).unbind(dim=1):
            i, f, g, o = self.gates(torch.cat([x, h], dim=1)).chunk(4, dim=1)
            c = torch.sigmoid(f + 1) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        return self.out(torch.stack(outputs, dim=1))


class Oscillator(nn.Module):
    def __init__(self, hidden: int = 30) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(1, hidden), nn.Linear(hidden, 1)

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        return 1 + t * t * self.last(torch.tanh(self.first(t)))
