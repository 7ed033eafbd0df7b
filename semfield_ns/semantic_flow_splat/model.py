"""Semantic Flow on Gaussians: each moves along a trajectory, and what the frames show along it becomes its class.

Read `get_outputs` (training) and `raw_outputs_for_camera` (a picture) first.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torch.nn import Parameter

from semfield_ns import parallel
from semfield_ns.errors import SemfieldError
from semfield_ns.gaussians.harmonics import CONSTANT, colours
from semfield_ns.gaussians.rasterize import Rendering, render
from semfield_ns.gaussians.splats import Splats
from semfield_ns.gaussians.values import Gaussians
from semfield_ns.rendering.features import FixedPCA
from semfield_ns.rendering.lazy import LazyOutputs
from semfield_ns.rendering.projection import project
from semfield_ns.segmentation.cameras import ViewCamera, same_camera
from semfield_ns.segmentation.clouds import Cloud
from semfield_ns.segmentation.views import Pictures, asked_pictures, picture_cells
from semfield_ns.semantic_flow.frames import SourceFrames
from semfield_ns.semantic_flow.video_model import EMPTY, VideoModel
from semfield_ns.semantic_flow_splat import losses
from semfield_ns.semantic_flow_splat.config import SemanticFlowSplatModelConfig
from semfield_ns.semantic_flow_splat.editor import EditedGaussians, SplatEditor
from semfield_ns.semantic_flow_splat.exported import SplatfactoValues, register
from semfield_ns.semantic_flow_splat.growth import grow
from semfield_ns.semantic_flow_splat.moving import MovingGaussians
from semfield_ns.semantic_flow_splat.semantics import (
    Gathered,
    TrajectorySemantics,
    gather_features,
    gather_labels,
    mean_features,
    uplift_image,
)
from semfield_ns.semantic_flow_splat.similarity import similarity_loss
from semfield_ns.semantic_flow_splat.tracks import spread
from semfield_ns.semantic_flow_splat.view import View, view_of

RAW_CHANNELS = 22
"""of the outputs of a render, besides logits and features"""
GROWTH_FRAMES = 6
"""whose pictures say where Gaussians are needed"""
BETWEEN = 0.01, 0.99
"""quantiles of the depths of Gaussians, between which strokes look for things"""
RIGID_NEIGHBOURS = 4
"""nearest tracks with which a track should move"""


class SemanticFlowSplatModel(SplatfactoValues, VideoModel):
    """A thin Nerfstudio model around `MovingGaussians`."""

    config: SemanticFlowSplatModelConfig
    background: Tensor
    """colour behind everything, [3] in [0, 1]"""

    def populate_modules(self) -> None:
        """Builds the Gaussians; in training from the scene, otherwise they come with the checkpoint."""
        super().populate_modules()
        register()
        config, metadata = self.config, self.kwargs["metadata"]
        self.label_map = metadata.get("label_map")
        self.metric_depth = metadata.get("depth_kind") == "metric"
        self.frames = SourceFrames(
            metadata["cameras"],
            metadata["source_features"],
            None,
            metadata["source_moving"],
            None,
            metadata.get("camera_ids"),
            metadata.get("on_disk", False),
        )
        num_classes = 0
        if self.label_map is not None:
            num_classes = len(self.label_map.classes)
            self.register_buffer("palette", torch.as_tensor(self.label_map.colors), persistent=False)
        self.feature_colors = FixedPCA(self.frames.feature_dim)
        dim = self.frames.feature_dim
        self.gaussians = MovingGaussians(len(self.frames), num_classes, config.harmonics_degree, dim, config.num_shades)
        self.token_steps = spread(len(self.frames), config.num_tokens)
        self.semantics = None
        if num_classes and config.flow_attention:
            self.semantics = TrajectorySemantics(
                dim, len(self.token_steps), num_classes, config.token_dim, config.attention_heads
            )
        self.gathered: Gathered | None = None
        self.evidence: Tensor | None = None
        self.neighbours: tuple[Tensor, Tensor] | None = None
        self.known_cloud: tuple[Hashable, Cloud | None] | None = None
        self.register_state_dict_pre_hook(lambda model, *_: model.settle())
        self.editor = SplatEditor(self, config.edits, metadata["world"])
        self.register_buffer("background", torch.full((3,), 0.5))
        start = metadata.get("start")
        if start is not None:
            near = config.default_near if metadata["near"] is None else metadata["near"]
            far = config.default_far if metadata["far"] is None else metadata["far"]
            count = min(config.start_gaussians, config.max_gaussians)
            # Depth that a field renders on a GPU differs in the last bit, and so may the number of Gaussians.
            self.gaussians.begin(parallel.of_first(lambda: start(near, far, count), self.kwargs["device"]))
            self.feature_colors.fit(self.frames.features, seed=0)
            if parallel.rank() == 0:
                moving = len(self.gaussians) - self.gaussians.num_still
                CONSOLE.log(f"{len(self.gaussians):,} Gaussians, {moving:,} of them moving.")

    def checkpoint_info(self) -> dict[str, str]:
        """What a checkpoint of this model fits; compared, entry by entry, when it is loaded."""
        classes = [] if self.label_map is None else list(self.label_map.names)
        return {
            "method": "semantic-flow-splat",
            "version": "1",
            "classes": ", ".join(classes),
            "feature dimension": str(self.frames.feature_dim),
            "time steps": str(len(self.frames)),
        }

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """A group for each kind of value of the Gaussians."""
        groups = {name: [getattr(self.gaussians, name)] for name in MovingGaussians.NAMES}
        if self.semantics is not None:
            groups["semantics"] = list(self.semantics.parameters())
        return groups

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Before a step: what is gathered along the trajectories is gathered anew from time to time."""
        before = [TrainingCallbackLocation.BEFORE_TRAIN_ITERATION]
        optimizers = training_callback_attributes.optimizers
        # The number of Gaussians first: what is gathered is of each of them.
        return [
            TrainingCallback(
                before, self.change_number, update_every_num_iters=self.config.grow_every, args=[optimizers]
            ),
            TrainingCallback(before, self.gather_anew, 1),
        ]

    def gather_anew(self, step: int) -> None:
        """Gathers from time to time, and where a training begins or is taken up again."""
        if step % self.config.gather_every == 0 or (self.gathered is None and self.evidence is None):
            self.gather(step)

    @torch.no_grad()
    def change_number(self, optimizers: Optimizers | None, step: int) -> None:
        """Puts transparent Gaussians elsewhere and adds new ones, where the pictures of a few frames are wrong.

        Several processes divide these frames, and draw alike from the sum of what they find.
        """
        config, gaussians = self.config, self.gaussians
        images = self.kwargs["metadata"].get("images")
        if step == 0 or step > config.grow_until or images is None:
            return
        generator = torch.Generator().manual_seed(step)
        error = gaussians.opacities.new_zeros(len(gaussians))
        for index in parallel.share(torch.randint(len(images), (GROWTH_FRAMES,), generator=generator).tolist()):
            view = self.view(self.kwargs["metadata"]["cameras"][index : index + 1])
            rgb = self.render(view, self.values(view.step, self.seen_colors(view, gaussians.means_at(view.step))))
            wrong = (rgb.channels - images[index].to(rgb.channels)).abs().mean(dim=-1, keepdim=True)
            error += uplift_image(gaussians, view, wrong, config.backend)[0][:, 0]
        error = parallel.summed(error)
        added = min(round(config.grow_share * len(gaussians)), config.max_gaussians - len(gaussians))
        grow(gaussians, error, max(added, 0), {} if optimizers is None else optimizers.optimizers, generator)
        if optimizers is not None:
            optimizers.parameters.update({name: [getattr(gaussians, name)] for name in MovingGaussians.NAMES})
        self.gather(step)

    # ---------------------------------------------------------------------------------------------- semantics

    @torch.no_grad()
    def gather(self, step: int = 0) -> None:
        """What the frames show along the trajectories, as these are now: image features, and labels."""
        config, gaussians = self.config, self.gaussians
        self.editor.forget()
        if config.loss_weights.rigidity and len(gaussians) > gaussians.num_still + RIGID_NEIGHBOURS:
            self.neighbours = nearest_tracks(gaussians.tracks, RIGID_NEIGHBOURS)
        if self.semantics is not None:
            views = [self.view(camera) for camera in self._step_cameras(self.token_steps)]
            self.gathered = gather_features(gaussians, views, self._features_of_token, config.backend)
            if not config.image_features:
                self.gathered = replace(self.gathered, features=torch.zeros_like(self.gathered.features))
        labels = self.kwargs["metadata"].get("known_labels")
        if labels is not None and config.uplift_labels and gaussians.num_classes:
            chosen = spread(len(labels), config.max_label_frames)
            cameras = self.kwargs["metadata"]["cameras"]
            views = [self.view(cameras[index : index + 1]) for index in chosen]
            self.evidence = gather_labels(gaussians, views, lambda number: labels[chosen[number]], config.backend)
        self._learn_all()

    def _step_cameras(self, steps: list[int]) -> list[Cameras]:
        cameras = self.time_cameras()
        return [cameras[step] for step in steps]

    def _features_of_token(self, number: int) -> Float[Tensor, "h w F"]:
        return self.frames.features[self.time_frames()[self.token_steps[number]]].float()

    def _own(self) -> Float[Tensor, "N 4"]:
        """What the semantic network knows of a Gaussian besides its trajectory."""
        return torch.cat([self.gaussians.colors.detach(), self.moving_channel()], dim=-1)

    @torch.no_grad()
    def _learn_all(self) -> None:
        """The logits that evidence and network give, for all Gaussians."""
        gaussians = self.gaussians
        known = torch.zeros_like(gaussians.logits)
        if self.evidence is not None:
            known += self.evidence
        if self.semantics is not None and self.gathered is not None:
            own = self._own()
            for part in torch.arange(len(gaussians), device=known.device).split(1 << 14):
                known[part] += self.semantics(self.gathered, own, part)
        gaussians.known = known

    def training_logits(self) -> Float[Tensor, "N C"]:
        """Logits of all Gaussians; of some of them, drawn at random, with the gradient of the semantic network."""
        gaussians, known = self.gaussians, self.gaussians.known
        if self.semantics is not None and self.gathered is not None:
            count = min(self.config.network_batch, len(gaussians))
            which = torch.randint(len(gaussians), (count,), device=known.device)
            fresh = self.semantics(self.gathered, self._own(), which)
            if self.evidence is not None:
                fresh = fresh + self.evidence[which]
            known = known.index_copy(0, which, fresh)
            gaussians.known = known.detach()
        return known + gaussians.logits if self.config.free_logits else known

    @torch.no_grad()
    def settle(self) -> None:
        """Before a checkpoint is written: what it needs that is no parameter. Nothing, where nothing is trained."""
        if self.gathered is None and self.evidence is None:
            # Photos of one moment, without labels: strokes still want features.
            if self.kwargs["metadata"].get("start") is not None and len(self.frames) == 1:
                self.gaussians.features = self._mean_features()
            return
        self._learn_all()
        self.gaussians.features = self.uplifted_features()

    @torch.no_grad()
    def describe(self) -> None:
        """Uplifts the image features of all frames to Gaussians that came without any."""
        self.gaussians.features = self._mean_features()
        self.feature_colors.fit(self.frames.features, seed=0)

    def _mean_features(self) -> Float[Tensor, "N F"]:
        cameras, features = self.kwargs["metadata"]["cameras"], self.frames.features
        views = [self.view(cameras[index : index + 1]) for index in range(len(cameras))]
        return mean_features(
            self.gaussians, views, lambda number: features[number].float().to(self.device), self.config.backend
        )

    def splat_file(self) -> Path | None:
        """The file of a splat that was attached."""
        return self.kwargs["metadata"].get("splat_file")

    def cloud(self) -> Cloud | None:
        """The Gaussians, where none moves and all have features; kept, with its graph, until weights change."""
        version = self.version()
        if self.known_cloud is None or self.known_cloud[0] != version:
            self.known_cloud = version, self._cloud()
        return self.known_cloud[1]

    @torch.no_grad()
    def image_outputs(self, camera: Cameras) -> Mapping[str, Float[Tensor, "H W channels"]]:
        """The "features" of the photo that a camera took; empty where none did, and of what moves."""
        cameras = self.kwargs["metadata"]["cameras"]
        if not self._photographed():
            return {}
        taken = same_camera(camera, cameras, range(len(cameras)))
        if taken is None:
            return {}
        return {"features": self._picture(taken, (int(camera.height.reshape(-1)[0]), int(camera.width.reshape(-1)[0])))}

    @torch.no_grad()
    def pictures(self) -> Pictures | None:
        """The photos that the Gaussians were fitted to, where none moves and all have features."""
        if not self._photographed() or not self._selectable():
            return None
        cameras = self.kwargs["metadata"]["cameras"]
        chosen = asked_pictures(len(cameras))
        views = [ViewCamera.of(cameras, number) for number in chosen]
        size = picture_cells(views[0])
        features = torch.stack([self._picture(number, size) for number in chosen])
        found = []
        for view in views:
            _, depth, inside = view.project(self.gaussians.means_at(0.0))
            found.append(depth[inside])
        depths = torch.cat(found).cpu().numpy()
        if not len(depths):  # no photo shows any Gaussian
            return None
        near, far = np.quantile(depths, BETWEEN)
        return Pictures(views, F.normalize(features, dim=-1), float(near), max(float(far), 1.01 * float(near)))

    def _photographed(self) -> bool:
        """Whether the Gaussians are of several photos of one moment, rather than of a video or a file."""
        cameras = self.kwargs["metadata"]["cameras"]
        return len(self.frames) == 1 and len(cameras) > 1 and self.splat_file() is None

    def _picture(self, number: int, size: tuple[int, int]) -> Float[Tensor, "H W F"]:
        """The features of a photo, in so many pixels."""
        grid = torch.as_tensor(self.frames.features[number]).to(self.device).float().permute(2, 0, 1)
        smaller = size[0] < grid.shape[1]
        return F.interpolate(grid[None], size=size, mode="bilinear", antialias=smaller)[0].permute(1, 2, 0)

    def _selectable(self) -> bool:
        """Whether there are Gaussians, none of which moves, and all have features."""
        gaussians = self.gaussians
        if len(self.frames) > 1 or not len(gaussians) or len(gaussians) > gaussians.num_still:
            return False
        return bool(self.uplifted_features().any())

    @torch.no_grad()
    def _cloud(self) -> Cloud | None:
        if not self._selectable():
            return None
        gaussians, features = self.gaussians, self.uplifted_features()
        background = self.background.new_zeros

        @torch.no_grad()
        def show(camera: ViewCamera, values: Float[Tensor, "N V"]) -> Float[Tensor, "H W V"]:
            view = self.view(camera.cameras())
            return render(
                self.values(view.step, values),
                view.pose,
                view.intrinsics.tolist(),
                view.width,
                view.height,
                background=background(values.shape[1]),
                antialiased=self.config.antialiased,
                backend=self.config.backend,
            ).channels

        @torch.no_grad()
        def gather(
            camera: ViewCamera, values: Float[Tensor, "H W V"]
        ) -> tuple[Float[Tensor, "N V"], Float[Tensor, "N"]]:
            return uplift_image(gaussians, self.view(camera.cameras()), values, self.config.backend)

        shown = (gaussians.colors * CONSTANT + 0.5).clamp(0, 1)
        cameras = self.kwargs["metadata"]["cameras"]
        pictures = [ViewCamera.of(cameras, index) for index in range(len(cameras))]
        return Cloud(gaussians.means_at(0.0), F.normalize(features, dim=-1), shown, pictures, show, gather)

    @torch.no_grad()
    def uplifted_features(self) -> Float[Tensor, "N F"]:
        """Mean image feature of the pixels that show each Gaussian, over the video."""
        gathered = self.gathered
        if gathered is None or not self.config.image_features:
            return self.gaussians.features
        return (gathered.features * gathered.visible).sum(dim=1) / gathered.visible.sum(dim=1).clamp(min=1)

    # ---------------------------------------------------------------------------------------------- rendering

    def view(self, camera: Cameras) -> View:
        """What one camera of shape [1] looks through."""
        camera = self.timed(camera)
        assert camera.times is not None, "the line above gives it one"
        return view_of(camera, self.step_of(float(camera.times)), self.device)

    def values(self, step: float, channels: Float[Tensor, "N channels"]) -> Gaussians:
        """All Gaussians at a time step, with channels."""
        gaussians = self.gaussians
        return Gaussians(
            gaussians.means_at(step),
            gaussians.quaternions,
            gaussians.scales.exp(),
            gaussians.opacities_at(step),
            channels,
        )

    def seen_colors(
        self, view: View, means: Float[Tensor, "N 3"], light: Float[Tensor, "N"] | None = None
    ) -> Float[Tensor, "N 3"]:
        """Colours of all Gaussians as a view sees them; `light` as in `MovingGaussians.coefficients_at`."""
        coefficients = self.gaussians.coefficients_at(view.step, light)
        return colours(coefficients, means, view.there(view.pose), self.config.harmonics_degree)

    def moving_channel(self) -> Float[Tensor, "N 1"]:
        """1 of Gaussians that move."""
        flags = self.gaussians.opacities.new_zeros(len(self.gaussians), 1)
        flags[self.gaussians.num_still :] = 1
        return flags

    def render(self, view: View, values: Gaussians, **wanted: bool) -> Rendering:
        """Composites channels, the first three of which are colours, over the background colour."""
        others = values.channels.shape[1] - 3
        return render(
            values,
            view.pose,
            view.intrinsics.tolist(),
            view.width,
            view.height,
            background=torch.cat([self.background, self.background.new_zeros(others)]),
            antialiased=self.config.antialiased,
            backend=self.config.backend,
            **wanted,
        )

    def get_outputs(self, ray_bundle: Any) -> Any:
        """What the losses need of a camera, in training; otherwise what people see."""
        if not isinstance(ray_bundle, Cameras):
            raise SemfieldError(
                "semantic-flow-splat renders whole pictures, not rays: export its Gaussians with ns-export "
                "gaussian-splat or semfield export."
            )
        if not self.training:
            return self.get_outputs_for_camera(ray_bundle)
        view = self.view(ray_bundle)
        means = self.gaussians.means_at(view.step)
        parts = [self.seen_colors(view, means), self.moving_channel(), self.training_logits()]
        way = 0
        if self.config.loss_weights.flow and ray_bundle.metadata is not None:
            way = 1 if torch.rand(()) < 0.5 else -1
            flow = self._flow_channels(view, means, int(ray_bundle.metadata["frame"]), way)
            parts += [] if flow is None else [flow]
            way = 0 if flow is None else way
        found = self.render(view, self.values(view.step, torch.cat(parts, dim=-1)), depth=True)
        assert found.depth is not None
        labels_end = 4 + self.gaussians.num_classes
        optical = {} if way == 0 else {"flow_forward" if way > 0 else "flow_backward": found.channels[..., labels_end:]}
        return optical | {
            "rgb": found.channels[..., :3],
            "moving": found.channels[..., 3],
            "logits": found.channels[..., 4:labels_end],
            "depth": found.depth[..., 0],
            "accumulation": found.accumulation[..., 0],
        }

    @torch.no_grad()
    def raw_outputs_for_camera(self, camera: Cameras, edited: bool = True) -> LazyOutputs:
        """Everything about one camera, float32 [H, W, channels]; with the edits, if there are any.

        rgb, rgb_static, rgb_dynamic; depth (along the ray) and scene_flow_forward, scene_flow_backward, surface in
        world units; accumulation, dynamic_weight; features (the encoder's, uplifted); logits; instances (numbers of
        the cloud's things, 0 for none) where nothing moves. Each is made when it is asked for: all that one pass gives
        at once.
        """
        scene = self.editor.scene() if edited and self.editor.edits else None
        view = self.view(camera)
        with torch.no_grad():
            means = self.gaussians.means_at(view.step)
            color = self.seen_colors(view, means, None if scene is None else scene.light(view.step))

        def seen(*others: Tensor, which: Tensor | None = None, **wanted: bool) -> Rendering:
            values, origins = self.values(view.step, torch.cat([color, *others], dim=-1)), None
            if scene is not None:
                values, origins = scene.apply(values, view.step)
            if which is not None:
                values = values.select(which if origins is None else which[origins])
            return self.render(view, values, **wanted)

        @cache
        def main() -> Rendering:
            return seen(self.moving_channel(), self.gaussians.class_logits(), depth=True)

        @cache
        def colors_alone() -> Rendering:
            return seen(depth=True)

        def surface() -> Rendering:
            """Colours, accumulation and depth: by the pass that is there, or the one that is quick."""
            return main() if main.cache_info().currsize else colors_alone()

        @cache
        def flows() -> Rendering:
            steps = self._scene_flow(view.step)
            return seen(*steps)

        @cache
        def rays() -> Tensor:
            return view.directions()

        def depth() -> Tensor:
            found = surface().depth
            assert found is not None, "asked for above"
            return found

        def branch(moving: bool) -> Tensor:
            flags = self.moving_channel()[:, 0] > 0.5
            return seen(which=flags if moving else ~flags).channels[..., :3]

        def share(values: Tensor) -> Tensor:
            return values / surface().accumulation.clamp(min=1e-4)

        makers: dict[str, Callable[[], Tensor]] = {
            "rgb": lambda: surface().channels[..., :3],
            "depth": lambda: depth() * rays().norm(dim=-1, keepdim=True),
            "accumulation": lambda: surface().accumulation,
            "dynamic_weight": lambda: main().channels[..., 3:4],
            "rgb_static": lambda: branch(False),
            "rgb_dynamic": lambda: branch(True),
            "surface": lambda: view.there(view.pose[:, 3]) + rays() * depth(),
            "scene_flow_forward": lambda: share(flows().channels[..., 3:6]),
            "scene_flow_backward": lambda: share(flows().channels[..., 6:9]),
            "features": lambda: share(seen(self.uplifted_features()).channels[..., 3:]),
        }
        if self.label_map is not None:
            makers["logits"] = lambda: main().channels[..., 4:]
        if self.cloud() is not None:
            makers["instances"] = lambda: self._thing_ids(seen, surface().accumulation)
        channels = RAW_CHANNELS + self.gaussians.num_classes + self.gaussians.feature_dim
        return LazyOutputs(makers, 4 * view.width * view.height * channels)

    def _thing_ids(
        self, seen: Callable[[Tensor], Rendering], accumulation: Float[Tensor, "H W 1"]
    ) -> Float[Tensor, "H W 1"]:
        """The thing, or the background, that most of each pixel is of; 0 where nothing is, too."""
        cloud = self.cloud()
        assert cloud is not None, "asked of models with a cloud only"
        shares = seen(F.one_hot(cloud.things).to(accumulation)).channels[..., 3:]
        return torch.where(accumulation < EMPTY, 0.0, shares.argmax(dim=-1, keepdim=True).float())

    def unedited_outputs(self, camera: Cameras) -> LazyOutputs:
        """What one camera sees without edits."""
        return self.raw_outputs_for_camera(camera, edited=False)

    def _scene_flow(self, step: float) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 3"]]:
        """Displacement of each Gaussian to the next and to the previous time step, world units a step."""
        now, last = self.gaussians.means_at(step), float(self.gaussians.num_steps - 1)
        moved = []
        for way in (1, -1):
            to = min(max(step + way, 0.0), last)
            reach = abs(to - step)
            moved.append((self.gaussians.means_at(to) - now) / reach if reach > 1e-6 else torch.zeros_like(now))
        return moved[0], moved[1]

    @torch.no_grad()
    def strongest_gaussian(self, scene: EditedGaussians, camera: Cameras, row: int, column: int) -> int:
        """Number of the Gaussian, before the edits, that contributes most to a pixel; -1 where nothing is."""
        view = self.view(camera)
        values, origins = scene.apply(
            self.values(view.step, self.seen_colors(view, self.gaussians.means_at(view.step))), view.step
        )
        found = self.render(view, values, index=True)
        assert found.index is not None
        number = int(found.index[min(max(row, 0), view.height - 1), min(max(column, 0), view.width - 1)])
        return -1 if number < 0 else int(origins[number])

    @torch.no_grad()
    def splats(self, step: float) -> Splats:
        """The Gaussians at a time step, edited, with their classes and objects."""
        gaussians = self.gaussians
        dynamic = self.label_map is not None and bool(self.label_map.dynamic.any())
        scene = self.editor.scene() if dynamic else None
        coefficients = gaussians.coefficients_at(step, None if scene is None else scene.light(step))
        count, terms = coefficients.shape[:2]
        # Edits look at the first three channels as colours: those of degree 0.
        color = coefficients[:, 0] * CONSTANT + 0.5
        values = self.values(step, torch.cat([color, coefficients[:, 1:].flatten(1)], dim=-1))
        origins = torch.arange(count, device=color.device)
        objects = torch.full_like(origins, -1)
        if scene is not None:
            objects = scene.owners
            values, origins = scene.apply(values, step)
        shown = torch.cat(
            [(values.channels[:, None, :3] - 0.5) / CONSTANT, values.channels[:, 3:].unflatten(-1, (terms - 1, 3))], 1
        )
        classes = torch.full_like(origins, -1)
        if gaussians.num_classes:
            classes = gaussians.class_logits().argmax(dim=-1)[origins]
        return Splats(values.with_channels(values.channels[:, :0]), shown, classes, objects[origins])

    @torch.no_grad()
    def trace_points(self, points: Float[Tensor, "K 3"], time: float, to: float) -> Float[Tensor, "K 3"]:
        """Where world points of one time in [0, 1] are at another one: they move as the Gaussian that is nearest."""
        from scipy.spatial import cKDTree

        before, after = (self.gaussians.means_at(self.step_of(t)) for t in (time, to))
        opaque = torch.nonzero(self.gaussians.opacities_at(self.step_of(time)) > 0.1)[:, 0]
        points = points.to(self.device)
        if len(opaque) == 0:
            return points
        _, nearest = cKDTree(before[opaque].cpu().numpy()).query(points.cpu().numpy())
        chosen = opaque[torch.from_numpy(nearest).to(opaque.device)]
        return points + after[chosen] - before[chosen]

    def _flow_channels(self, view: View, means: Tensor, frame: int, way: int) -> Float[Tensor, "N 2"] | None:
        """Optical flow of each Gaussian, px, to the same camera's next or previous frame; None where there is none."""
        other = self.frames.neighbour_of(frame, way)
        step = view.step + way
        if other < 0 or not 0 <= step <= self.gaussians.num_steps - 1:
            return None
        count = len(means)
        here, lens = view.there(view.pose), view.there(view.intrinsics)
        now, ahead = project(means, here.expand(count, 3, 4), lens.expand(count, 4))
        pose, intrinsics = self.frames.frame_poses[other], self.frames.frame_intrinsics[other]
        then, ahead_then = project(self.gaussians.means_at(step), pose.expand(count, 3, 4), intrinsics.expand(count, 4))
        in_front = ((ahead > 0) & (ahead_then > 0))[:, None]
        # Far outside of the picture flow says nothing.
        return torch.where(in_front, then - now, 0.0).clamp(-view.width, view.width)

    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Any], metrics_dict: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Every loss, times its weight, by the name of its field in `SplatLossWeights`."""
        weights = asdict(self.config.loss_weights)
        truth = batch["image"][..., :3].to(outputs["rgb"])
        if "moving" not in outputs:
            return {"rgb": weights["rgb"] * (outputs["rgb"] - truth).abs().mean()}
        # A picture that was made larger says nothing between its own pixels.
        # It counts by the pixels that it has.
        rgb, truth = (losses.at_size(image, batch.get("stored_size")) for image in (outputs["rgb"], truth))
        share = rgb.numel() / outputs["rgb"].numel()
        difference = rgb - truth
        values = {
            "rgb": share * difference.abs().mean(),
            "rgb_squared": share * difference.square().mean(),
            "accumulation": 1 - outputs["accumulation"].mean(),
            "acceleration": losses.acceleration_loss(self.gaussians.tracks),
            "presence": losses.change_loss(self.gaussians.presence),
            "shading": self.gaussians.shades.square().sum() / max(self.gaussians.shades.numel(), 1),
        }
        for name in ("flow_forward", "flow_backward"):
            if name in outputs and name in batch:
                values["flow"] = losses.flow_loss(outputs[name], batch[name])
        if self.neighbours is not None:
            values["rigidity"] = losses.rigidity_loss(self.gaussians.tracks, *self.neighbours)
        if weights["ssim"]:
            values["ssim"] = share * similarity_loss(rgb, truth)
        if "depth" in batch and self.metric_depth:
            values["depth"] = losses.relative_depth_loss(outputs["depth"], batch["depth"][..., 0])
        if "dynamic_mask" in batch:
            values["mask"] = losses.mask_loss(outputs["moving"], batch["dynamic_mask"][..., 0])
        if "semantics" in batch:
            values["semantics"] = losses.label_loss(outputs["logits"], batch["semantics"][..., 0])
            if "propagated_label" in batch and not self.metric_depth:
                values["semantics_carried"] = losses.carried_label_loss(outputs["logits"], batch["propagated_label"])
        return {name: weights[name] * value for name, value in values.items() if weights[name] != 0}


def nearest_tracks(tracks: Float[Tensor, "M T 3"], count: int) -> tuple[Int[Tensor, "M K"], Float[Tensor, "M K"]]:
    """Of each track, those that are nearest in the middle of the video, and the distances there."""
    from scipy.spatial import cKDTree

    places = tracks[:, tracks.shape[1] // 2].cpu().numpy()
    distances, nearest = cKDTree(places).query(places, k=count + 1)
    device = tracks.device
    return torch.from_numpy(nearest[:, 1:]).to(device), torch.from_numpy(distances[:, 1:]).float().to(device)
