"""The viewer of all presets."""

from nerfstudio.configs.base_config import ViewerConfig


def local_viewer(rays_per_chunk: int) -> ViewerConfig:
    """A viewer that only this machine can open, which renders so many rays at once."""
    # Nerfstudio's default is every interface; a viewer can run code on this machine's data, so it is opened by choice.
    return ViewerConfig(websocket_host="127.0.0.1", num_rays_per_chunk=rays_per_chunk)
