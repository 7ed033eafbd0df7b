"""The network of GSN and GNT written plainly, with the official names, for tests and as the yardstick of speed.

Tensors are [rays, samples, views, channels]; nothing is fused, reused or cached.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


def encode(x):
    parts = [x]
    for octave in range(10):
        parts += [torch.sin(x * 2**octave), torch.cos(x * 2**octave)]
    return torch.cat(parts, dim=-1)


class FeedForward(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


class ViewAttention(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.q_fc, self.k_fc, self.v_fc = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.pos_fc = nn.Sequential(nn.Linear(4, dim // 8), nn.ReLU(), nn.Linear(dim // 8, dim))
        self.attn_fc = nn.Sequential(nn.Linear(dim, dim // 8), nn.ReLU(), nn.Linear(dim // 8, dim))
        self.out_fc = nn.Linear(dim, dim)

    def forward(self, q, keys, relative, mask):
        q = self.q_fc(q)
        k = self.k_fc(keys)
        v = self.v_fc(k)
        p = self.pos_fc(relative)
        logits = self.attn_fc(k - q[:, :, None, :] + p)
        logits = logits.masked_fill(mask == 0, -1e9)
        attention = torch.softmax(logits, dim=-2)
        return self.out_fc(((v + p) * attention).sum(dim=2))


class RayAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.q_fc, self.k_fc, self.v_fc = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.out_fc = nn.Linear(dim, dim)
        self.heads = heads

    def forward(self, x):
        rays, samples, dim = x.shape
        split = (rays, samples, self.heads, dim // self.heads)
        q, k, v = (layer(x).view(split).permute(0, 2, 1, 3) for layer in (self.q_fc, self.k_fc, self.v_fc))
        attention = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(dim // self.heads), dim=-1)
        mixed = (attention @ v).permute(0, 2, 1, 3).reshape(rays, samples, dim)
        return self.out_fc(mixed), attention


class Transformer(nn.Module):
    def __init__(self, dim, attention):
        super().__init__()
        self.attn_norm, self.ff_norm = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.ff, self.attn = FeedForward(dim), attention

    def forward(self, q, *context):
        update, attention = self.attn(self.attn_norm(q), *context), None
        if isinstance(update, tuple):
            update, attention = update
        q = q + update
        return q + self.ff(self.ff_norm(q)), attention


class ReferenceTrunk(nn.Module):
    def __init__(self, dim=64, blocks=4, image_dim=32, heads=4, direction_in_trunk=False, masked_pooling=False):
        super().__init__()
        self.masked_pooling, self.direction_in_trunk = masked_pooling, direction_in_trunk
        self.rgbfeat_fc = nn.Sequential(nn.Linear(3 + image_dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.view_crosstrans = nn.ModuleList(Transformer(dim, ViewAttention(dim)) for _ in range(blocks))
        self.view_selftrans = nn.ModuleList(Transformer(dim, RayAttention(dim, heads)) for _ in range(blocks))
        inner = dim + (126 if direction_in_trunk else 63)
        self.q_fcs = nn.ModuleList(
            nn.Sequential(nn.Linear(inner, dim), nn.ReLU(), nn.Linear(dim, dim)) if i % 2 == 0 else nn.Identity()
            for i in range(blocks)
        )
        self.norm = nn.LayerNorm(dim)
        if not direction_in_trunk:
            self.hviews_fc = nn.Sequential(nn.Linear(dim + 63, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.rgb_fc = nn.Linear(dim, 3)

    def forward(self, rgb_features, relative, mask, points, directions):
        samples = points.shape[1]
        keys = self.rgbfeat_fc(rgb_features)
        q = pool(keys, mask if self.masked_pooling else None)
        position = encode(points)
        direction = encode(directions)[:, None].expand(-1, samples, -1)
        attention = None
        for i in range(len(self.view_crosstrans)):
            q, _ = self.view_crosstrans[i](q, keys, relative, mask)
            if i % 2 == 0:
                extra = [position, direction] if self.direction_in_trunk else [position]
                q = self.q_fcs[i](torch.cat([q, *extra], dim=-1))
            q, attention = self.view_selftrans[i](q)
        h = self.norm(q)
        if self.direction_in_trunk:
            rgb = self.rgb_fc(h.mean(dim=1))
        else:
            rgb = self.rgb_fc(self.hviews_fc(torch.cat([h, direction], dim=-1)).mean(dim=1))
        return rgb, attention.mean(dim=1)[:, 0], q, keys


class ReferenceHead(nn.Module):
    def __init__(self, dim=64, feature_dim=64, heads=4, masked_pooling=False):
        super().__init__()
        inner = dim + feature_dim
        self.masked_pooling = masked_pooling
        self.view_trans = Transformer(inner, ViewAttention(inner))
        self.ray_trans = Transformer(inner, RayAttention(inner, heads))
        self.dinofc = nn.Linear(inner, feature_dim)
        self.norm = nn.LayerNorm(inner)

    def forward(self, q, keys, teacher, relative, mask):
        q = torch.cat([q, pool(teacher, mask if self.masked_pooling else None)], dim=-1)
        q, _ = self.view_trans(q, torch.cat([keys, teacher], dim=-1), relative, mask)
        q, _ = self.ray_trans(q)
        return self.dinofc(self.norm(q).mean(dim=1))


def pool(x, mask):
    if mask is None:
        return x.max(dim=2)[0]
    pooled = x.masked_fill(mask == 0, -torch.inf).max(dim=2)[0]
    return torch.where(mask.any(dim=2), pooled, 0.0)


def unit(x):
    return x / x.norm(dim=-1, keepdim=True).clamp(min=1e-6)


def look(points, origins, images, maps, teacher_images, c2w, intrinsics):
    """What views show at points [R,S,3]: rgb and features, teacher features, ray differences, masks.

    c2w: OpenCV poses [V,4,4]; intrinsics: [V,4], the centre of the first pixel at 0.
    """
    height, width = images.shape[-2:]
    w2c = torch.linalg.inv(c2w)
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)
    local = torch.einsum("vij,rsj->rsvi", w2c, homogeneous)[..., :3]
    z = local[..., 2:]
    uv = local[..., :2] / z.clamp(min=1e-8) * intrinsics[:, :2] + intrinsics[:, 2:]
    uv = uv.clamp(-1e6, 1e6)
    size = torch.tensor([width - 1.0, height - 1.0])
    mask = ((uv >= 0) & (uv <= size)).all(dim=-1, keepdim=True) & (z > 0)
    grid = (2 * uv / size - 1).permute(2, 0, 1, 3)

    def sample(pictures):
        return F.grid_sample(pictures, grid, align_corners=True).permute(2, 3, 0, 1)

    rgb_features = torch.cat([sample(images), sample(maps)], dim=-1)
    teacher = sample(teacher_images) if teacher_images is not None else None
    t = origins[:, None] - points
    t = (t / (t.norm(dim=-1, keepdim=True) + 1e-6))[:, :, None]
    s = c2w[:, :3, 3] - points[:, :, None]
    s = s / (s.norm(dim=-1, keepdim=True) + 1e-6)
    relative = torch.cat([unit(t - s), (t * s).sum(dim=-1, keepdim=True)], dim=-1)
    return rgb_features, teacher, relative, mask
