# An image with all commands. On a machine without a GPU, and with one:
#
#   docker build -t semfield .
#   docker build -t semfield --build-arg DEVICE=cuda .
#   docker run --rm -it --gpus all --network host --shm-size 4g -u "$(id -u):$(id -g)" -v "$PWD:/work" semfield \
#       ns-train semantic-flow-splat --data data/demo
#
# Without a GPU, leave out `--gpus all`. The viewer listens on 127.0.0.1, hence `--network host`. What the container keeps for
# the next time (caches, compiled kernels) is in the folder .home of the mounted one.
ARG DEVICE=cpu

FROM debian:bookworm-slim AS base-cpu
ENV UV_TORCH_BACKEND=cpu

# With nvcc: gsplat compiles its kernels when they are first used.
FROM nvidia/cuda:13.0.2-devel-ubuntu24.04 AS base-cuda
ENV UV_TORCH_BACKEND=cu130

# hadolint ignore=DL3006
FROM base-${DEVICE}
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# ffmpeg for videos, the libraries for open3d (`ns-export`), compiler and headers for kernels.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ffmpeg g++ libegl1 libgl1 libgomp1 libusb-1.0-0 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
ENV VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:$PATH
# hadolint ignore=DL3013
RUN python3 -m venv "$VIRTUAL_ENV" && pip install --no-cache-dir uv
# The installation reads [tool.uv] of the pyproject.toml in the folder that it runs in.
WORKDIR /opt/semfield
COPY pyproject.toml README.md LICENSE ./
COPY method_configs method_configs
COPY semfield_ns semfield_ns
RUN uv pip install --no-cache ".[process,teachers]"
ENV HOME=/data/.home
WORKDIR /data
CMD ["semfield", "--help"]
