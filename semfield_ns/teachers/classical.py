"""Hand-made descriptors: colour at several scales, edges, texture and regions. They need no weights and no network."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from semfield_ns.teachers.base import Teacher


class ClassicalTeacher(Teacher):
    """Colour, gradient and Hessian responses over octaves, and the mean colour of SLIC regions.

    The blurs give context, the regions keep object boundaries sharp. Channels are standardised over each batch of
    images by `semfield_ns.teachers.cache`, so their units do not matter.

    Args:
        stride: pixels per feature cell.
        sigmas: standard deviations of the blurs, in pixels of an image 480 wide; they scale with the width.
        regions: numbers of SLIC regions, coarse to fine.
    """

    def __init__(
        self,
        stride: int = 2,
        sigmas: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0),
        regions: tuple[int, ...] = (150, 600),
    ) -> None:
        self.stride = stride
        self.sigmas = sigmas
        self.regions = regions
        self.dim = 3 + 6 * len(sigmas) + 3 * len(regions)
        self.name = f"classical-1-s{stride}-{'_'.join(f'{s:g}' for s in sigmas)}-r{'_'.join(map(str, regions))}"

    def encode(self, images: Float[Tensor, "batch height width 3"]) -> Float[Tensor, "batch h w dim"]:
        maps = np.stack([self._describe(image.cpu().numpy().astype(np.float32)) for image in images])
        features = torch.from_numpy(maps).permute(0, 3, 1, 2)
        height, width = images.shape[1:3]
        size = (math.ceil(height / self.stride), math.ceil(width / self.stride))
        if size != (height, width):
            features = torch.nn.functional.interpolate(features, size=size, mode="area")
        return features.permute(0, 2, 3, 1).contiguous()

    def _describe(self, image: np.ndarray) -> np.ndarray:
        from scipy import ndimage
        from skimage.color import rgb2lab
        from skimage.segmentation import slic

        lab = (rgb2lab(image) / 100.0).astype(np.float32)
        scale = image.shape[1] / 480.0
        channels = [lab]
        for sigma in self.sigmas:
            blurred = ndimage.gaussian_filter(lab, sigma=(sigma * scale, sigma * scale, 0))
            light = blurred[..., 0]
            gy, gx = np.gradient(light)
            gyy, gyx = np.gradient(gy)
            gxx = np.gradient(gx, axis=1)
            # Eigenvalues of the Hessian: ridges and blobs, whatever their direction.
            middle, spread = (gxx + gyy) / 2, np.sqrt(((gxx - gyy) / 2) ** 2 + gyx**2)
            edges = np.stack([np.hypot(gx, gy), middle + spread, middle - spread], axis=-1)
            channels += [blurred, edges * sigma * scale]
        for count in self.regions:
            segments = slic(image, n_segments=count, compactness=10.0, start_label=0, channel_axis=-1)
            size = np.bincount(segments.ravel())
            means = np.stack([np.bincount(segments.ravel(), lab[..., c].ravel()) / size for c in range(3)], axis=-1)
            channels.append(means[segments].astype(np.float32))
        return np.concatenate(channels, axis=-1)
