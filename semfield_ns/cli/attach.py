"""`semfield attach`: a new scene through a trained generalisable model, without training."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from semfield_ns.cli.hints import viewer_line
from semfield_ns.cli.progress import lines
from semfield_ns.cli.splats import SplatWorld, Up

if TYPE_CHECKING:
    from semfield_ns.gsn.model import GSNModel


def attach(
    data: Path | None = None,
    load_config: Path | None = None,
    output_dir: Path = Path("outputs"),
    images: str | None = None,
    longest_side: int | None = None,
    hold_out: bool = True,
    preview: int = 200,
    bake: bool = False,
    bake_steps: int | None = None,
    splat: Path | None = None,
    splat_world: SplatWorld = "scene",
    up: Up = "auto",
    teacher: str | None = None,
    antialiased: bool = False,
) -> None:
    """Make a run of new photos or of a Gaussian splat, untrained.

    The run opens with semfield view, ns-render and ns-eval like any other. That of a splat has the Gaussians of the
    file: strokes select among them, and semfield export --formats splats writes objects and the rest bit for bit.

    Args:
        data: Folder of the scene: transforms.json or LLFF. With --splat it may be left out: then views of the splat
            take the place of photos.
        load_config: Folder of a trained run of gsn, or its config.yml. By default, the small weights that come with
            this package are used: gsn-tiny, trained on few scenes and small pictures, for a first look.
        output_dir: The run goes to OUTPUT_DIR/SCENE/METHOD/attached.
        images: Image folder of an LLFF scene, such as images_4. By default, the one with the smallest images.
        longest_side: Shrink images to at most this many pixels on the longer side. By default, as the run does, and
            to 504 for the Gaussians of --bake.
        hold_out: Keep every 8th image for evaluation, unless the scene has held-out images of its own.
        preview: Longer side of the first picture in pixels; 0 writes none. None with --bake or --splat.
        bake: Fit Gaussians to the photos, in a minute or two on a CPU: a run that is drawn in real time, takes
            strokes, and exports as a splat. It says how much nearer to the held-out photos it is.
        bake_steps: Photos to fit the Gaussians to, one after the other. By default ten times as many as there are,
            at least 400 and at most 1000.
        splat: A Gaussian splat of any program, a .ply file in the 3DGS format. The run goes to
            OUTPUT_DIR/FILE/METHOD/attached.
        splat_world: Coordinates of the splat, where --data is given: as in semfield export.
        up: What is up in the world of a splat without --data. auto: z of files of ns-export, -y of others.
        teacher: Teacher of the features of a splat, such as dinov2. By default lite-fine+classical, or classical where
            the weights of lite are missing.
        antialiased: The splat was trained with anti-aliasing, as by Mip-Splatting.
    """
    from semfield_ns.errors import SemfieldError

    if splat is not None:
        from semfield_ns.cli.splats import attach_splat

        if load_config is not None or bake:
            raise SemfieldError("--splat needs no weights and is baked already: leave --load-config and --bake out.")
        config = attach_splat(splat, data, output_dir, images, splat_world, up, teacher, antialiased)
        print("To see it in the browser:")
        print(viewer_line(config))
        return
    if data is None:
        raise SemfieldError("There is nothing to attach: give --data, the folder of a scene, or --splat.")
    from semfield_ns.gsn import runs

    start = time.perf_counter()
    if load_config is None:
        from semfield_ns.gsn.pretrained import unpack
        from semfield_ns.method_configs.gsn import gsn_tiny

        load_config = unpack(gsn_tiny.config, output_dir)
    config = runs.attach(load_config, data, output_dir, images, longest_side, hold_out)
    with lines("Reading the scene and the weights"):
        model = runs.open_run(config)
    print(f"Attached: {config}")
    if bake:
        from semfield_ns.cli.baking import bake_photos

        config = bake_photos(model, config, output_dir, bake_steps, longest_side)
    else:
        describe(model, config, preview, start)
    print("To see it in the browser:")
    print(viewer_line(config))


def describe(model: "GSNModel", config: Path, preview: int, start: float) -> None:
    """Image features of the photos of an attached run, and a first picture of it.

    Args:
        model: of the run.
        config: its config.yml.
        preview: longer side of the picture, pixels; 0 for none.
        start: when the command began, by `time.perf_counter`.

    Raises:
        SemfieldError: a run that has learned features lacks the weights of its teacher.
    """
    from semfield_ns.errors import SemfieldError
    from semfield_ns.gsn import runs

    opened = time.perf_counter()
    why = "This run has learned no features yet"
    try:
        with lines("Computing image features"):
            knows_features = runs.compute_tokens(model, config)
    except SemfieldError as error:
        if model.knows_features:
            raise
        knows_features, why = False, str(error).rstrip(".")
    described = time.perf_counter()
    if not knows_features:
        print(f"{why}: colour and depth only.")
    if preview > 0:
        with lines("Rendering the first picture"):
            pictures = runs.write_preview(model, config.parent, preview)
        print(f"First picture: {', '.join(str(path) for path in pictures)}")
        print(
            f"Seconds: {opened - start:.1f} for scene and weights, {described - opened:.1f} for image features, "
            f"{time.perf_counter() - described:.1f} for the picture"
        )
