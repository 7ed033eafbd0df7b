"""GSN as a Nerfstudio model: source views in, colours, depth and features of any view out.

Read `get_outputs` and `render_image` first: which views to look from, where on the rays to look, what the network says.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.models.base_model import ModelConfig
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor, nn
from torch.nn import Parameter

from semfield_ns.errors import SemfieldError
from semfield_ns.gsn.accumulation import summed
from semfield_ns.gsn.augmentation import crop, mirror
from semfield_ns.gsn.distillation import Distilled, Further, head_names
from semfield_ns.gsn.framing import in_view_frame
from semfield_ns.gsn.library import SceneLibrary
from semfield_ns.gsn.memory import BoundedCache
from semfield_ns.gsn.network import GSNNetwork, NetworkConfig
from semfield_ns.gsn.projection import SourceViews
from semfield_ns.gsn.rendering import RaySettings, render_image, render_parts, render_rays
from semfield_ns.gsn.schedule import follow_stages
from semfield_ns.gsn.sources import nearest_views
from semfield_ns.gsn.tokens import TokenProjection, TokenStore, matching_teacher, matching_tokens
from semfield_ns.metrics.images import image_quality, psnr
from semfield_ns.rendering.features import FixedPCA
from semfield_ns.rendering.rays import sent
from semfield_ns.scene_model import Parts, SceneModel, finished
from semfield_ns.segmentation.cameras import ViewCamera, same_camera
from semfield_ns.segmentation.views import Pictures, asked_pictures, picture_cells
from semfield_ns.teachers.registry import teacher_dim

_MEGABYTE = 1 << 20


@dataclass
class GSNModelConfig(ModelConfig):
    """One set of classes; the presets differ in these values only."""

    _target: type = field(default_factory=lambda: GSNModel)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    """Sizes and variants of the network."""
    rays: RaySettings = field(default_factory=RaySettings)
    """Where on the rays the network looks."""
    bounds: Literal["sources", "scene"] = "sources"
    """Where rays begin and end: as near and far as the source views see anything, where the scene tells; or the same
    for all views of a scene (official)."""
    frame: Literal["scene", "view"] = "scene"
    """Coordinates of the positions and directions that the network receives: the scene's (official), or the camera's
    own (see `framing`)."""
    num_source_views: int = 10
    """Views a picture is rendered from in evaluation."""
    teacher: str = "dinov2"
    """2-D features that are distilled: classical, lite, resnet18, dinov2, dino, clip, sam, sam2 or siglip2; other
    weights as in dinov2:FOLDER, a class of your own as in my_module:MyTeacher."""
    more_teachers: tuple[str, ...] = ()
    """Further teachers, each with a feature head of its own: their features are called features_KIND."""
    matching_teacher: str = "auto"
    """2-D features of the scene's pictures by which strokes find things. `auto`: those of `teacher`, unless that is
    classical; then lite-fine+classical, where the weights of lite are at hand."""
    teacher_stride: int = 4
    """Pixels a token of the classical teacher."""
    projection: Literal["shared", "scene"] = "shared"
    """Principal components of the teacher's features: over all training scenes, or of every scene (official)."""
    projection_images: int = 48
    """Training images, spread over all scenes, that the shared projection is fitted on."""
    stage_one_steps: int = 300_000
    """Steps that learn colour alone; then features are distilled too."""
    stage_two_rgb: float = 0.1
    """Weight of the colour loss beside the feature loss, in the second stage."""
    feature_loss: float = 1.0
    """Weight of the feature loss."""
    depth_loss: float = 0.0
    """Weight of the depth loss, in scenes that bring metric depth: rendered synthetic ones, say."""
    mirror_probability: float = 0.0
    """Of source views being flipped in a step of the first stage, as GNT does."""
    crop_share: float = 1.0
    """Share of each side of the source views that is kept in a step of the first stage, as GNT does."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of products in evaluation; positions, encodings and the stream stay in float32."""
    compile: bool = False
    """Compile the softmax over views: half a minute at the start (kept on disk), for pictures and long trainings."""
    token_budget: int = 1024
    """Megabytes of token grids kept on the device."""
    map_budget: int = 1024
    """Megabytes of encoder maps kept on the device, in evaluation."""
    enable_collider: bool = False
    """Off: every scene brings its own bounds."""
    eval_num_rays_per_chunk: int = 2048
    """Rays rendered at once in evaluation and in the viewer."""


class GSNModel(SceneModel):
    """A thin Nerfstudio model around `GSNNetwork`."""

    config: GSNModelConfig

    def populate_modules(self) -> None:
        """Builds the network, and what it reads the scenes by."""
        super().populate_modules()
        config, metadata = self.config, self.kwargs["metadata"]
        names = head_names(config.more_teachers)
        self.network = GSNNetwork(replace(config.network, more_heads=names))
        self.network.use_compiled(config.compile)
        self.library: SceneLibrary = metadata["library"]
        self.shown: int = metadata["shown"]
        self.eval_images: list[tuple[int, int]] = metadata["eval_images"]
        self.distilled: list[Distilled] = []
        dim = config.network.feature_dim
        if dim:
            self.projection = TokenProjection(teacher_dim(config.teacher), dim)
            self.feature_colors = FixedPCA(dim)
            self.distilled.append(self._distilled("features", config.teacher, self.projection, self.feature_colors))
            self.further = nn.ModuleDict()
            for name, teacher in zip(names, config.more_teachers, strict=True):
                parts = self.further[name] = Further(teacher_dim(teacher), dim)
                self.distilled.append(self._distilled(f"features_{name}", teacher, parts.projection, parts.colors))
        self.matching = self._matching_tokens() if dim else None
        self.maps = BoundedCache(config.map_budget * _MEGABYTE)
        self.scene_names = [scene.name for scene in self.library.scenes]
        self.stage = 1
        self.evaluating = False

    def render_key(self) -> int:
        """Changes when the same camera sees something else, though the weights are the same."""
        return self.shown

    def _distilled(self, output: str, teacher: str, projection: TokenProjection, colors: FixedPCA) -> Distilled:
        config = self.config
        budget = config.token_budget * _MEGABYTE // (1 + len(config.more_teachers))
        tokens = TokenStore(
            self.library,
            teacher,
            config.teacher_stride,
            projection,
            config.projection == "scene",
            budget,
            self.kwargs["device"],
        )
        return Distilled(output, projection, colors, tokens)

    @property
    def stroke_teacher(self) -> str:
        """The teacher of the features that strokes are compared by."""
        config = self.config
        return matching_teacher(config.teacher) if config.matching_teacher == "auto" else config.matching_teacher

    def _matching_tokens(self) -> TokenStore | None:
        """Features of pictures that strokes are compared by; None where they are those of the first teacher."""
        config, name = self.config, self.stroke_teacher
        if name == config.teacher:
            return None
        budget = config.token_budget * _MEGABYTE
        return matching_tokens(self.library, name, config.teacher_stride, budget, self.kwargs["device"])

    @property
    def tokens(self) -> TokenStore | None:
        """The tokens of the first teacher, if there is one."""
        return self.distilled[0].tokens if self.distilled else None

    def checkpoint_info(self) -> dict[str, str]:
        """What a checkpoint of this model fits; compared, entry by entry, when it is loaded. Scenes do not matter."""
        config = self.config
        info = {"method": "gsn", "version": "1", "feature dimension": str(config.network.feature_dim)}
        if config.network.feature_dim:
            info |= {"teacher": config.teacher, "projection": config.projection}
        if config.more_teachers:
            info["more teachers"] = ", ".join(config.more_teachers)
        return info

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """Groups "encoder", "trunk", and where the model has any "head", of all feature heads."""
        groups = {
            "encoder": list(self.network.feature_net.parameters()),
            "trunk": list(self.network.net_coarse.parameters()),
        }
        heads = self.network.feature_heads.values()
        if heads:
            groups["head"] = [parameter for head in heads for parameter in head.parameters()]
        return groups

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Before each step: which stage it belongs to."""
        if training_callback_attributes.optimizers is not None:
            follow_stages(training_callback_attributes.optimizers.schedulers.values(), self.config.stage_one_steps)
        for absent in filter(None, (each.absent() for each in self.distilled)):
            needed = f"Training continues without it for {self.config.stage_one_steps:,} steps, then stops."
            CONSOLE.print(f"{absent} {needed}", style="bold yellow", markup=False)
        return [TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], self.set_step)]

    def set_step(self, step: int) -> None:
        """Puts the model into the stage of a training step. The teacher is needed from the second stage on."""
        before, self.stage = self.stage, 1 if step < self.config.stage_one_steps or not self.distilled else 2
        if self.stage == 2 and before == 1:
            self.prepare_tokens()
            for each in self.distilled:  # at once, in batches and with a progress bar, and not between steps
                each.tokens.extract_training()
        self.maps.clear()

    def update_to_step(self, step: int) -> None:
        """Forgets what belonged to other weights."""
        self.maps.clear()
        for each in self.distilled:
            each.tokens.forget()

    def prepare_tokens(self) -> None:
        """Fits the shared projections, and the colours that features are shown in, unless a checkpoint brought them."""
        for each in self.distilled:
            each.prepare(self.config.projection_images)

    @property
    def knows_features(self) -> bool:
        """Whether there is a feature head and what it needs."""
        return bool(self.distilled) and all(bool(each.projection.fitted) for each in self.distilled)

    def tokens_of(self, scene: int, sources: Sequence[int]) -> tuple[Tensor, ...]:
        """The tokens of source views, of every teacher [V, F, h, w]."""
        return tuple(each.tokens.stack(scene, sources) for each in self.distilled)

    # ------------------------------------------------------------------------------------------------- sources

    def training_views(self, scene: int, sources: Sequence[int], with_tokens: bool) -> SourceViews:
        """Source views of a training step, encoded with gradients."""
        views = self.library.views(scene, sources, self.device)
        if with_tokens:
            views = views._replace(tokens=self.tokens_of(scene, sources))
        elif views.distortion is None:
            if self.config.crop_share < 1:
                views = crop(views, self.config.crop_share)
            if torch.rand(()) < self.config.mirror_probability:
                views = mirror(views)
        return self.network.encode(views)

    @torch.no_grad()
    def evaluation_views(self, scene: int, sources: Sequence[int]) -> SourceViews:
        """Source views for rendering; what was computed for other pictures of the scene is used again."""
        views = self.library.views(scene, sources, self.device)

        def encoded(index: int, image: Tensor) -> Tensor:
            return self.maps.get((scene, index), lambda: self.network.feature_net(image[None])[0])

        maps = [encoded(index, image) for index, image in zip(sources, views.images, strict=True)]
        tokens = self.tokens_of(scene, sources) if self.knows_features else ()
        return views._replace(maps=torch.stack(maps), tokens=tokens)

    def sources_for(self, scene: int, centre: Float[Tensor, "3"]) -> list[int]:
        """The nearest training views of a scene.

        Raises:
            SemfieldError: there is none.
        """
        posed = self.library.scenes[scene]
        chosen = nearest_views(centre.cpu(), posed.centres, posed.train, self.config.num_source_views)
        if not chosen:
            raise SemfieldError(f"Scene {posed.name} has no training image.")
        return chosen

    def bounds_of(self, scene: int, sources: Sequence[int]) -> tuple[float, float]:
        """Depths along the optical axis between which rays are looked at."""
        posed = self.library.scenes[scene]
        return posed.bounds(sources) if self.config.bounds == "sources" else (posed.near, posed.far)

    # ----------------------------------------------------------------------------------------------- rendering

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Any]:
        """Training: the losses, and colours without gradients. Otherwise: the outputs that people see."""
        scene, sources = self._asked_for(ray_bundle)
        bounds, rays, settings = self.bounds_of(scene, sources), ray_bundle.flatten(), self.config.rays
        if self.training:
            views = self.training_views(scene, sources, self.stage == 2)
            colors: list[Tensor] = []
            assert views.maps is not None, "they have been encoded"
            losses = summed(self._losses_in_parts(rays, scene, bounds, views, colors), [*self._others, views.maps])
            return {"rgb": torch.cat(colors), "losses": losses}
        rays, views = self._framed(rays, self.evaluation_views(scene, sources))
        parts, chunk = [], self.config.eval_num_rays_per_chunk
        with self._autocast():
            for start in range(0, len(rays), chunk):
                some = rays[start : start + chunk]
                parts.append(render_rays(self.network, some, bounds, views, settings, self.knows_features))
        return self.present({name: torch.cat([part[name] for part in parts]) for name in parts[0]})

    @property
    def _others(self) -> list[Parameter]:
        """The weights of all but the encoder."""
        modules = [self.network.net_coarse, *self.network.feature_heads.values()]
        return [parameter for module in modules for parameter in module.parameters()]

    def _losses_in_parts(
        self, rays: RayBundle, scene: int, bounds: tuple[float, float], views: SourceViews, colors: list[Tensor]
    ) -> Iterator[dict[str, Tensor]]:
        """Mean squared errors of colours, and in the second stage of features, times their weights: of a few rays.

        Args:
            rays: of a training step, one target after the other.
            scene: that they are of.
            bounds: of their depths.
            views: their source views.
            colors: where rendered colours go.
        """
        second, total = self.stage == 2, len(rays)
        weights = {"rgb": self.config.stage_two_rgb if second else 1.0}
        for some in of_each_target(rays):
            truth = {"rgb": some.metadata["colors"]}
            if second:
                truth |= {each.output: each.at(scene, some.metadata["indices"]) for each in self.distilled}
            depths = self._true_depths(scene, some)
            framed, seen = self._framed(some, views)
            for part, outputs in render_parts(self.network, framed, bounds, seen, self.config.rays, second):
                colors.append(outputs["rgb"].detach())
                losses = {
                    name: (weights.get(name, self.config.feature_loss) / (total * shown.shape[-1]))
                    * (outputs[name] - shown[part]).square().sum()
                    for name, shown in truth.items()
                }
                if depths is not None:
                    found = outputs["depth"] / framed.metadata["directions_norm"][part]
                    losses["depth"] = self.config.depth_loss / total * depth_error(found, depths[part], bounds)
                yield losses

    def _true_depths(self, scene: int, rays: RayBundle) -> Float[Tensor, "R 1"] | None:
        """Depths along the optical axis of a target's rays, 0 where unknown; None where nothing is learned of them."""
        if self.config.depth_loss == 0 or not self.library.scenes[scene].depth_paths:
            return None
        image, row, column = rays.metadata["indices"].unbind(dim=-1)
        return sent(self.library.depth(scene, int(image[0]))[row, column, None], self.device)

    def _asked_for(self, bundle: RayBundle) -> tuple[int, list[int]]:
        """Scene and source views of a bundle."""
        metadata = bundle.metadata
        scene = int(metadata["scene"].reshape(-1)[0]) if "scene" in metadata else self.shown
        if "sources" in metadata:
            return scene, metadata["sources"].flatten(0, -2)[0].tolist()
        return scene, self.sources_for(scene, bundle.origins.reshape(-1, 3)[0])

    def _framed(self, bundle: RayBundle, views: SourceViews) -> tuple[RayBundle, SourceViews]:
        return in_view_frame(bundle, views) if self.config.frame == "view" else (bundle, views)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.config.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Any], metrics_dict: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """In training, those that were computed with the outputs; otherwise the mean squared error of colours."""
        if self.training:
            return outputs["losses"]
        return {"rgb": (outputs["rgb"] - batch["image"][..., :3].to(outputs["rgb"])).square().mean()}

    def raw_outputs_for_camera(self, camera: Cameras) -> Mapping[str, Tensor]:
        """rgb, depth (along the ray, normalised units), and features, of every pixel of one camera, as they are."""
        return finished(self.raw_outputs_in_parts(camera))

    @torch.no_grad()
    def raw_outputs_in_parts(self, camera: Cameras) -> Parts:
        """The same, part by part."""
        camera = camera.to(self.device)
        scene = self.shown
        if camera.metadata is not None and "scene" in camera.metadata:
            scene = int(camera.metadata["scene"].reshape(-1)[0])
        bundle = camera.generate_rays(camera_indices=0, keep_shape=True)
        sources = self.sources_for(scene, bundle.origins.reshape(-1, 3)[0])
        bundle, views = self._framed(bundle, self.evaluation_views(scene, sources))
        bounds, chunk = self.bounds_of(scene, sources), self.config.eval_num_rays_per_chunk
        parts = render_image(self.network, bundle, bounds, views, self.config.rays, self.knows_features, chunk)
        while True:
            with self._autocast():  # a thread's own: nothing waits with it
                try:
                    next(parts)
                except StopIteration as end:
                    return end.value
            yield

    @property
    def knows_words(self) -> bool:
        """Whether the teacher supports text queries."""
        return self.tokens is not None and self.tokens.knows_words

    def text_features(self, texts: list[str]) -> Float[Tensor, "N F"]:
        """Words in the space of the features, of unit norm.

        Raises:
            SemfieldError: the teacher does not support text queries, or the model no features yet.
        """
        if self.tokens is None or not self.knows_features:
            raise SemfieldError("This run has no features yet: train it into its second stage.")
        return self.tokens.words(self.shown, texts).to(self.device)

    @torch.no_grad()
    def image_outputs(self, camera: Cameras) -> dict[str, Float[Tensor, "height width channels"]]:
        """The "rgb" and "features" of the training image that a camera took, at its resolution, as far as known.

        Empty where no training image of the shown scene was taken from there.
        """
        posed = self.library.scenes[self.shown]
        taken = same_camera(camera, posed.cameras, posed.train)
        if taken is None:
            return {}
        return self._picture(taken, (int(camera.height.reshape(-1)[0]), int(camera.width.reshape(-1)[0])))

    @torch.no_grad()
    def picture_outputs(self, path: Path, size: tuple[int, int]) -> dict[str, Float[Tensor, "height width channels"]]:
        """The "rgb" and "features" of any picture of the shown scene, as far as known; empty where it is no such."""
        frames = self.library.scenes[self.shown].frames
        known = [index for index, frame in enumerate(frames) if frame.image_path == path]
        return self._picture(known[0], size) if known else {}

    def _picture(self, index: int, size: tuple[int, int]) -> dict[str, Tensor]:
        image = self.library.image(self.shown, index).to(self.device).permute(2, 0, 1)[None].float() / 255
        image = F.interpolate(image, size=size, mode="bilinear", antialias=True)[0].permute(1, 2, 0)
        if not self.knows_features:
            return {"rgb": image}
        return {"rgb": image, "features": self._matched(index, size)}

    def _matched(self, index: int, size: tuple[int, int]) -> Float[Tensor, "H W F"]:
        """The features of a picture of the shown scene that strokes are compared by."""
        store = self.distilled[0].tokens if self.matching is None else self.matching
        return store.upright(self.shown, index, size)

    @torch.no_grad()
    def surface_outputs(self, points: Float[Tensor, "H W 3"], camera: Cameras) -> dict[str, Float[Tensor, "H W F"]]:
        """The mean "features" of the source views that show these points; empty where rendered ones are to be used."""
        if self.matching is None or not self.knows_features:
            return {}
        posed, total = self.library.scenes[self.shown], points.new_zeros(())
        for index in self.sources_for(self.shown, camera.camera_to_worlds.reshape(-1, 3, 4)[0, :, 3]):
            view = ViewCamera.of(posed.cameras, index)
            pixels, _, visible = view.project(points)
            position = 2 * pixels / pixels.new_tensor([view.width, view.height]) - 1
            grid = self.matching.stack(self.shown, [index])
            found = F.grid_sample(grid, position[None].nan_to_num(), padding_mode="border", align_corners=False)
            total = total + found[0].permute(1, 2, 0) * visible[..., None]
        return {"features": F.normalize(total, dim=-1)}

    @torch.no_grad()
    def pictures(self) -> Pictures | None:
        """Training images of the shown scene as small grids of features; None before any are known."""
        posed = self.library.scenes[self.shown]
        if not self.knows_features or len(posed.train) < 2:
            return None
        chosen = [posed.train[number] for number in asked_pictures(len(posed.train))]
        cameras = [ViewCamera.of(posed.cameras, index) for index in chosen]
        size = picture_cells(cameras[0])
        features = torch.stack([self._matched(index, size) for index in chosen])
        return Pictures(cameras, F.normalize(features, dim=-1), posed.near, posed.far)

    def present(self, raw: dict[str, Tensor], camera: Cameras | None = None) -> dict[str, Tensor]:
        """The outputs that people see: float32, 1 or 3 channels, in [0, 1] if 3. They depend on no camera."""
        rgb = raw["rgb"].float().clamp(0, 1)
        outputs = {"rgb": rgb, "depth": raw["depth"].float(), "accumulation": torch.ones_like(rgb[..., :1])}
        for each in self.distilled:
            if each.output in raw:
                outputs[each.output.replace("features", "features_pca", 1)] = each.colors(raw[each.output])
                if self.evaluating:
                    outputs[each.output] = raw[each.output]
        return outputs

    def get_rgba_image(self, outputs: dict[str, Tensor], output_name: str = "rgb") -> Tensor:
        """Colour and accumulation [..., 4] of any 3-channel output."""
        return torch.cat([outputs[output_name], outputs["accumulation"]], dim=-1)

    # ---------------------------------------------------------------------------------------------- evaluation

    def get_metrics_dict(self, outputs: dict[str, Any], batch: dict[str, Any]) -> dict[str, Tensor]:
        """PSNR of the rays of a step."""
        truth = batch["image"][..., :3].to(outputs["rgb"])
        return {"psnr": psnr(outputs["rgb"].clamp(0, 1), truth).clamp(max=100)}

    def begin_evaluation(self) -> None:
        """From here on, outputs have the raw features too, which metrics need and people cannot see."""
        self.evaluating = True

    def end_evaluation(self, output_path: Path | None) -> dict[str, float]:
        """Ends what `begin_evaluation` began; all metrics are means over images."""
        self.evaluating = False
        return {}

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """PSNR, SSIM, LPIPS (where its weights are at hand), and the cosine to the teacher's features of the image."""
        truth = batch["image"][..., :3].to(outputs["rgb"])
        metrics = image_quality(outputs["rgb"], truth)
        images = {"img": torch.cat([truth, outputs["rgb"]], dim=1)}
        for each in self.distilled:
            if each.output in outputs:
                scene, image = self.eval_images[int(batch["image_idx"])]
                teacher = each.upright(scene, image, (truth.shape[0], truth.shape[1]))
                cosine = F.cosine_similarity(outputs[each.output], teacher, dim=-1).mean()
                metrics[each.output.replace("features", "feature_cosine", 1)] = float(cosine)
                images[each.output] = torch.cat([each.colors(teacher), each.colors(outputs[each.output])], dim=1)
        return metrics, images


def depth_error(
    found: Float[Tensor, "R 1"], true: Float[Tensor, "R 1"], bounds: tuple[float, float]
) -> Float[Tensor, ""]:
    """Sum of absolute differences of inverse depths, as shares of their range, over rays whose depth is known (> 0)."""
    near, far = bounds
    known = (true > 0).float()
    inverse = 1 / found.clamp(min=near / 2) - 1 / torch.where(true > 0, true, far).clamp(near, far)
    return (inverse.abs() * known).sum() / (1 / near - 1 / far)


def of_each_target(rays: RayBundle) -> list[RayBundle]:
    """The rays of a training step, by the images that they are of."""
    counts = rays.metadata["indices"][:, 0].unique_consecutive(return_counts=True)[1].tolist()
    ends = list(accumulate(counts))
    return [rays[end - count : end] for count, end in zip(counts, ends, strict=True)]
