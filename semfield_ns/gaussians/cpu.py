"""Rendering on CPUs."""

import math
import numba as nb
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from semfield_ns.gaussians.values import rotation_matrices

TILE = 16


def project(means, quats, scales, opacities, pose, numbers, width, height, near, blur):
    fx, fy, cx, cy = numbers
    c2w = torch.tensor(pose)
    axes = c2w[:, :3] * torch.tensor([1.0, -1.0, -1.0])
    x, y, z = ((means - c2w[:, 3]) @ axes).unbind(-1)
    ok = z >= near
    z = torch.where(ok, z, torch.ones_like(z))
    half = axes.T @ rotation_matrices(quats) * scales[:, None, :]
    mx, my = 0.15 * width / fx, 0.15 * height / fy
    tx = (x / z).clamp(-cx / fx - mx, (width - cx) / fx + mx)
    ty = (y / z).clamp(-cy / fy - my, (height - cy) / fy + my)
    o = torch.zeros_like(z)
    J = torch.stack([fx / z, o, -fx * tx / z, o, fy / z, -fy * ty / z], -1).reshape(-1, 2, 3) @ half
    cov = J @ J.transpose(1, 2)
    a, b, c = cov[:, 0, 0] + blur, cov[:, 0, 1], cov[:, 1, 1] + blur
    det = (a * c - b * b).clamp(min=1e-12)
    xy = torch.stack([fx * x / z + cx, fy * y / z + cy], -1)
    with torch.no_grad():
        mid = 0.5 * (a + c)
        lam = mid + (mid * mid - det).clamp(min=0).sqrt()
        op = torch.ones_like(z) if opacities is None else opacities
        r = (2 * (255 * op).clamp(min=1).log() * lam).sqrt().ceil()
        u, v = xy.unbind(-1)
        ok = ok & (u + r > 0) & (u - r < width) & (v + r > 0) & (v - r < height) & (op >= 1 / 255)
        r = torch.where(ok, r, torch.zeros_like(r))
    return xy, z, torch.stack([c / det, -b / det, a / det], -1), r


@nb.njit(parallel=True, cache=True)
def fwd(start, count, gid, xy, conic, op, feat, W, H, tw, out, final_T, last, med, best):
    C = feat.shape[1]
    for t in nb.prange(len(start)):
        ty = t // tw
        tx = t - ty * tw
        s = start[t]
        for py in range(ty * TILE, min(H, ty * TILE + TILE)):
            for px in range(tx * TILE, min(W, tx * TILE + TILE)):
                T = np.float32(1.0)
                top = np.float32(0)
                for j in range(count[t]):
                    g = gid[s + j]
                    dx = np.float32(px + 0.5) - xy[g, 0]
                    dy = np.float32(py + 0.5) - xy[g, 1]
                    p = -np.float32(0.5) * (conic[g, 0] * dx * dx + conic[g, 2] * dy * dy) - conic[g, 1] * dx * dy
                    a = min(np.float32(0.999), op[g] * math.exp(p))
                    if p > 0 or a < np.float32(1 / 255):
                        continue
                    n = T * (1 - a)
                    if n <= 1e-4:
                        break
                    w = a * T
                    for c in range(C):
                        out[py, px, c] += w * feat[g, c]
                    if w > top:
                        top = w
                        best[py, px] = g
                    if T >= 0.5 and n < 0.5:
                        med[py, px] = g
                    T = n
                    last[py, px] = j + 1
                final_T[py, px] = T


@nb.njit(parallel=True, cache=True)
def bwd(start, count, gid, xy, conic, op, feat, W, H, tw, final_T, last, gout, gT, gp):
    C = feat.shape[1]
    for t in nb.prange(len(start)):
        ty = t // tw
        tx = t - ty * tw
        s = start[t]
        for py in range(ty * TILE, min(H, ty * TILE + TILE)):
            for px in range(tx * TILE, min(W, tx * TILE + TILE)):
                T = final_T[py, px]
                S = gT[py, px] * T
                for j in range(last[py, px] - 1, -1, -1):
                    g = gid[s + j]
                    dx = np.float32(px + 0.5) - xy[g, 0]
                    dy = np.float32(py + 0.5) - xy[g, 1]
                    p = -np.float32(0.5) * (conic[g, 0] * dx * dx + conic[g, 2] * dy * dy) - conic[g, 1] * dx * dy
                    e = math.exp(p)
                    a0 = op[g] * e
                    a = min(np.float32(0.999), a0)
                    if p > 0 or a < np.float32(1 / 255):
                        continue
                    T = T / (1 - a)
                    w = a * T
                    q = np.float32(0)
                    for c in range(C):
                        go = gout[py, px, c]
                        gp[s + j, 6 + c] += w * go
                        q += feat[g, c] * go
                    ga = q * T - S / (1 - a)
                    S += w * q
                    if a0 < 0.999:
                        gp[s + j, 5] += ga * e
                        k = ga * a
                        gp[s + j, 2] += -0.5 * k * dx * dx
                        gp[s + j, 3] += -k * dx * dy
                        gp[s + j, 4] += -0.5 * k * dy * dy
                        gp[s + j, 0] += k * (conic[g, 0] * dx + conic[g, 1] * dy)
                        gp[s + j, 1] += k * (conic[g, 2] * dy + conic[g, 1] * dx)


def bins(p):
    W, H = p.width, p.height
    tw, th = (W + TILE - 1) // TILE, (H + TILE - 1) // TILE
    idx = (p.radii > 0).nonzero()[:, 0]
    idx = idx[torch.argsort(p.depths[idx], stable=True)]
    x, y = p.means2d.detach()[idx].unbind(-1)
    r = p.radii[idx]
    x0, x1 = (((x + s * r) / TILE).floor().clamp(0, tw - 1).long() for s in (-1, 1))
    y0, y1 = (((y + s * r) / TILE).floor().clamp(0, th - 1).long() for s in (-1, 1))
    nx = x1 - x0 + 1
    n = nx * (y1 - y0 + 1)
    rep = torch.repeat_interleave(torch.arange(len(idx)), n)
    k = torch.arange(len(rep)) - torch.repeat_interleave(torch.cumsum(n, 0) - n, n)
    tile = (y0[rep] + k // nx[rep]) * tw + x0[rep] + k % nx[rep]
    o = torch.argsort(tile, stable=True)
    count = torch.bincount(tile, minlength=tw * th)
    return (torch.cumsum(count, 0) - count).numpy(), count.numpy(), idx[rep[o]].numpy(), tw


class Raster(torch.autograd.Function):
    @staticmethod
    def forward(ctx, xy, conic, op, feat, p, lists):
        start, count, gid, tw = lists
        W, H = p.width, p.height
        n = lambda t: t.detach().contiguous().numpy()
        args = (start, count, gid, n(xy), n(conic), n(op), n(feat), W, H, tw)
        out = np.zeros((H, W, feat.shape[1]), np.float32)
        T = np.ones((H, W), np.float32)
        last = np.zeros((H, W), np.int64)
        med, best = np.full((H, W), -1), np.full((H, W), -1)
        fwd(*args, out, T, last, med, best)
        ctx.args, ctx.res = args, (T, last)
        med, best = torch.from_numpy(med), torch.from_numpy(best)
        ctx.mark_non_differentiable(med, best)
        return torch.from_numpy(out), torch.from_numpy(T), med, best

    @staticmethod
    def backward(ctx, gout, gT, *_):
        a = ctx.args
        gp = np.zeros((len(a[2]), 6 + a[6].shape[1]), np.float32)
        bwd(*a, *ctx.res, gout.contiguous().numpy(), gT.contiguous().numpy(), gp)
        G = torch.zeros(len(a[3]), gp.shape[1]).index_add_(0, torch.from_numpy(a[2]), torch.from_numpy(gp))
        return G[:, :2], G[:, 2:5], G[:, 5], G[:, 6:], None, None


def rasterize(p, opacities, channels, background, depth, median_depth, index):
    feat = torch.cat([channels, p.depths[:, None]], -1)
    out, T, med, best = Raster.apply(p.means2d, p.conics, opacities, feat, p, bins(p))
    T = T[..., None]
    picture = out[..., :-1]
    if background is not None:
        picture = picture + T * background
    median = torch.where(med >= 0, p.depths.detach()[med.clamp(min=0)], 0.0)[..., None] if median_depth else None
    return picture, 1 - T, out[..., -1:] if depth else None, median, best if index else None


def uplift(p, opacities, values):
    K = values.shape[-1]
    with torch.enable_grad():
        feat = torch.zeros(len(opacities), K + 1, requires_grad=True)
        out = Raster.apply(p.means2d.detach(), p.conics.detach(), opacities, feat, p, bins(p))[0]
        (g,) = torch.autograd.grad(out, feat, torch.cat([values, torch.ones_like(values[..., :1])], -1))
    return g[:, :-1], g[:, -1]
