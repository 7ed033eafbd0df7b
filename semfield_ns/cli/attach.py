"""`semfield attach`: a trained generalisable model meets a new scene, without training."""

import time
from pathlib import Path

from semfield_ns.cli.hints import viewer_line


def attach(
    data: Path,
    load_config: Path | None = None,
    output_dir: Path = Path("outputs"),
    images: str | None = None,
    longest_side: int | None = None,
    hold_out: bool = True,
    preview: int = 200,
) -> None:
    """Write a run folder that ns-viewer, ns-render and ns-eval open, and a first picture of the scene.

    Args:
        data: The new scene: transforms.json or LLFF.
        load_config: config.yml of a trained run of gsn; by default the small weights that come with this package
            (gsn-tiny, trained on synthetic scenes alone: for a first look).
        output_dir: The run goes to OUTPUT_DIR/SCENE/METHOD/attached.
        images: Image folder of an LLFF scene, such as images_4; the smallest by default.
        longest_side: Shrink pictures so that no side is longer than so many pixels; as in the run by default.
        hold_out: Keep every 8th image for evaluation, if the scene holds none out itself.
        preview: Longer side of the first picture in pixels; 0 for none.
    """
    from semfield_ns.errors import SemfieldError
    from semfield_ns.gsn import runs

    start = time.perf_counter()
    if load_config is None:
        from semfield_ns.gsn.pretrained import unpack
        from semfield_ns.method_configs.gsn import gsn_tiny

        load_config = unpack(gsn_tiny.config, output_dir)
    config = runs.attach(load_config, data, output_dir, images, longest_side, hold_out)
    model = runs.open_run(config)
    opened = time.perf_counter()
    why = "This run has learned no features yet"
    try:
        knows_features = runs.compute_tokens(model, config)
    except SemfieldError as error:
        if model.knows_features:
            raise
        knows_features, why = False, str(error).rstrip(".")
    described = time.perf_counter()
    print(f"Attached: {config}")
    if not knows_features:
        print(f"{why}: colour and depth only.")
    if preview > 0:
        pictures = runs.write_preview(model, config.parent, preview)
        print(f"First picture: {', '.join(str(path) for path in pictures)}")
        print(
            f"Seconds: {opened - start:.1f} to read scene and weights, {described - opened:.1f} for teacher features, "
            f"{time.perf_counter() - described:.1f} for the picture"
        )
    print("To look at it in the browser:")
    print(viewer_line(config))
