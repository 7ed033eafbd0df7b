"""3-D Gaussians as tensors, and their pictures: pure functions, on CPUs (numba) and on CUDA devices (gsplat).

World and camera coordinates are Nerfstudio's: OpenGL camera-to-world poses (x right, y up, z backwards). Pixels:
x right, y down, the centre of the first pixel is (0.5, 0.5).

    from semfield_ns.gaussians.rasterize import render
    from semfield_ns.gaussians.values import Gaussians

    rendering = render(Gaussians(means, quaternions, scales, opacities, channels), camera_to_world, (fx, fy, cx, cy),
                       width, height, depth=True)

Neither numba nor gsplat is imported before something is rendered.
"""
