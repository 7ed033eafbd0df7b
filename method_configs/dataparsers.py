"""Dataparsers that Nerfstudio's commands offer: `ns-train nerfacto semfield-data --data SCENE`."""

from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from semfield_ns.scenes.dataparser import SemfieldDataParserConfig

semfield_data = DataParserSpecification(
    config=SemfieldDataParserConfig(),
    description="Static and dynamic scenes with semantics: transforms.json (extended), Semantic Nvidia, LLFF.",
)
