"""What is built, installed and registered: from the sources, and from a wheel in an empty environment."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
METHODS = (
    *("gsn", "gsn-paper", "gsn-tiny", "semantic-flow", "semantic-flow-paper", "semantic-flow-tiny"),
    *("semantic-flow-splat", "semantic-flow-splat-tiny"),
)
COMMANDS = ("ns-train", "ns-eval", "ns-render", "ns-export", "ns-viewer", "ns-process-data", "ns-install-cli")
OPTIONAL = ("transformers", "tinycudann", "pycolmap")
MAX_EXTRA_SHARE = 0.1
"""of the seconds that Nerfstudio needs alone; a slow or busy machine is slow with both"""

# What each package, and each module beside the packages, may import besides itself and `EVERYWHERE`: from low to high.
EVERYWHERE = {"errors", "io", "run_folder"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "io": set(),
    "run_folder": set(),
    "parallel": set(),
    "compat": set(),
    "__init__": {"compat"},
    "rendering": set(),
    "scenes": {"rendering"},
    "metrics": {"compat"},
    "gaussians": set(),
    "teachers": {"scenes", "rendering"},
    "labelling": {"scenes", "teachers"},
    "tracking": {"scenes", "teachers", "rendering"},
    "segmentation": {"scenes", "teachers", "rendering"},
    "editing": {"scenes"},
    "scene_model": {"scenes", "segmentation", "editing", "gaussians"},
    "sessions": {"scenes", "rendering", "segmentation", "scene_model"},
    "process": {"scenes", "rendering", "teachers", "labelling", "tracking"},
    "pipeline": {"parallel", "compat", "scene_model", "sessions"},
    "semantic_flow": {
        *("compat", "scenes", "teachers", "rendering", "metrics", "labelling", "editing", "scene_model", "pipeline")
    },
    "semantic_flow_splat": {
        *("parallel", "scenes", "rendering", "metrics", "gaussians", "labelling", "editing", "scene_model"),
        *("segmentation", "semantic_flow"),
    },
    "gsn": {"compat", "scenes", "teachers", "rendering", "metrics", "segmentation", "scene_model", "pipeline"},
    "export": {"scenes", "rendering", "segmentation", "sessions", "editing", "gaussians", "scene_model"},
    "evaluation": {
        *("scenes", "teachers", "rendering", "metrics", "labelling", "segmentation", "sessions", "scene_model")
    },
    "viewer": {
        *("compat", "scenes", "rendering", "gaussians", "segmentation", "sessions", "editing", "export", "scene_model")
    },
    "method_configs": {"scenes", "semantic_flow", "semantic_flow_splat", "gsn", "pipeline"},
    "cli": {
        *("compat", "scenes", "teachers", "rendering", "metrics", "labelling", "segmentation", "editing"),
        *("scene_model", "sessions", "process", "pipeline", "semantic_flow", "gsn", "export", "evaluation"),
        *("tracking", "gaussians", "semantic_flow_splat"),
        *("viewer", "method_configs"),
    },
}

# Put first on the path of a command: optional packages are absent, and the plugin too if asked.
SITE_CUSTOMIZE = f"""
import importlib.metadata, os, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}} (hidden by a test)", name=name)

sys.meta_path.insert(0, Absent())

if os.environ.get("WITHOUT_PLUGIN"):
    every_entry_point = importlib.metadata.entry_points
    def entry_points(**params):
        found = every_entry_point(**params)
        if not params:
            return found
        return importlib.metadata.EntryPoints(e for e in found if not e.value.startswith("semfield_ns"))
    importlib.metadata.entry_points = entry_points
"""

RUN_COMMANDS = f"""
import importlib.metadata, sys
scripts = importlib.metadata.entry_points(group="console_scripts")
for name in {COMMANDS!r}:
    sys.argv = [name, "--help"]
    try:
        scripts[name].load()()
    except SystemExit as end:
        print(name, "ends with", end.code)
"""


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def sources() -> list[Path]:
    return sorted([*ROOT.glob("semfield_ns/**/*.py"), *ROOT.glob("method_configs/**/*.py")])


def imports(path: Path, at_import: bool = False) -> Iterator[str]:
    """Dotted names that a source file imports; `from a import b` gives `a.b`.

    Args:
        path: of the file.
        at_import: leave out what is imported by functions only, or for types only.
    """
    tree = ast.parse(path.read_text())
    for node in ast.walk(AtImport().visit(tree) if at_import else tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_folder_with_sources_is_a_listed_package():
    folders = {str(path.parent.relative_to(ROOT)).replace(os.sep, ".") for path in sources()}
    folders = {"semfield_ns." + name if name.startswith("method_configs") else name for name in folders}
    assert set(pyproject()["tool"]["setuptools"]["packages"]) == folders


def test_what_is_imported_is_declared_here_or_by_nerfstudio():
    project = pyproject()["project"]
    extras = project["optional-dependencies"].values()
    declared = [*project["dependencies"], *(line for extra in extras for line in extra)]
    declared += [line for line in importlib.metadata.requires("nerfstudio") or [] if "extra ==" not in line]
    declared_names = {normalised(re.split(r"[^A-Za-z0-9_.-]", line, maxsplit=1)[0]) for line in declared}
    distributions = importlib.metadata.packages_distributions()
    undeclared = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources()
        for name in {dotted.partition(".")[0] for dotted in imports(path)} - set(sys.stdlib_module_names)
        if name not in ("semfield_ns", "tinycudann")
        and not declared_names & {normalised(d) for d in distributions.get(name, [name])}
    }
    assert undeclared == set()


def normalised(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def module_name(path: Path) -> str:
    """The dotted name that a source file is imported by."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] == "method_configs":
        parts.insert(0, "semfield_ns")
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def package_of(name: str) -> str:
    """The package, or the module beside the packages, that a dotted name of the package belongs to."""
    return name.split(".")[1]


def own_imports(path: Path, at_import: bool) -> set[str]:
    """Names of our modules that a source file imports; see `imports`."""
    known = {module_name(other) for other in sources()}
    found = {name for name in imports(path, at_import) if name.startswith("semfield_ns.")}
    return {name if name in known else name.rpartition(".")[0] for name in found} - {"semfield_ns"}


class AtImport(ast.NodeTransformer):
    """Takes away what does not run when a module is imported."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        return None

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if "TYPE_CHECKING" in ast.dump(node.test) else node


def test_no_module_imports_an_upper_package():
    wrong = []
    for path in sources():
        package = package_of(module_name(path))
        allowed = MAY_IMPORT[package] | EVERYWHERE | {package}
        used = own_imports(path, at_import=False)
        wrong += [f"{path.relative_to(ROOT)} imports {name}" for name in used if package_of(name) not in allowed]
    assert wrong == []


def test_packages_are_in_order():
    order = list(MAY_IMPORT)
    assert all(order.index(low) < order.index(package) for package, lows in MAY_IMPORT.items() for low in lows)


def test_no_modules_import_each_other_in_a_circle():
    arrows = {module_name(path): own_imports(path, at_import=True) for path in sources()}
    done: set[str] = set()

    def walk(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for other in sorted(arrows.get(name, ())):
                walk(other, (*way, name))
            done.add(name)

    for name in arrows:
        walk(name, ())


@pytest.mark.parametrize("name", ["semfield_ns.semantic_flow.model", "semfield_ns.gsn.model"])
def test_models_import_no_user_interface(name: str):
    # By our own imports: Nerfstudio's own base model imports viser.
    arrows = {module_name(path): path for path in sources()}
    seen, waiting = set(), [name]
    while waiting:
        module = waiting.pop()
        if module in seen or module not in arrows:
            continue
        seen.add(module)
        foreign = [n for n in imports(arrows[module], at_import=True) if n.startswith(("viser", "nerfstudio.viewer"))]
        assert foreign == [], module
        waiting += own_imports(arrows[module], at_import=True)
    assert {package_of(module) for module in seen}.isdisjoint({"viewer", "export", "cli"})
    code = f"import sys, {name}; print(*(m for m in sys.modules if m.startswith('semfield_ns.')))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert name in loaded and {package_of(module) for module in loaded}.isdisjoint({"viewer", "export", "cli"})


def test_config_modules_keep_their_annotations():
    wrong = [
        str(path.relative_to(ROOT))
        for path in sources()
        if "__future__.annotations" in set(imports(path)) and re.search(r"^class \w+Config\b", path.read_text(), re.M)
    ]
    assert wrong == []


def test_registered_objects_are_what_nerfstudio_wants():
    from nerfstudio.plugins.registry_dataparser import DataParserSpecification
    from nerfstudio.plugins.types import MethodSpecification

    for name in METHODS:
        (entry_point,) = importlib.metadata.entry_points(group="nerfstudio.method_configs", name=name)
        specification = entry_point.load()
        assert isinstance(specification, MethodSpecification)
        assert specification.config.method_name == name
        assert specification.config.viewer.websocket_host == "127.0.0.1"
    (entry_point,) = importlib.metadata.entry_points(group="nerfstudio.dataparser_configs", name="semfield-data")
    assert isinstance(entry_point.load(), DataParserSpecification)


class Installed:
    """The wheel, and an environment into which it was installed."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.bin = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        (self.wheel,) = (folder / "wheel").glob("*.whl")

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess:
        """Run a command of the environment, in an empty folder, where optional packages are absent."""
        clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        return subprocess.run(
            [self.bin / command[0], *command[1:]],
            capture_output=True,
            text=True,
            cwd=self.folder / "empty",
            env={**clean, "PYTHONPATH": str(self.folder / "site"), "COLUMNS": "200", **environment},
            timeout=600,
        )


@pytest.fixture(scope="module")
def installed() -> Iterator[Installed]:
    """Of the wheel that SEMFIELD_WHEEL names (`make release-check`), or of one built from the sources."""
    # Beside the checkout's own environment: uv then links its cached files instead of copying eight gigabytes.
    (ROOT / "build").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="installed-", dir=ROOT / "build"))
    try:
        install_wheel(folder)
        yield Installed(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def install_wheel(folder: Path) -> None:
    for name in ("source", "wheel", "empty", "site"):
        (folder / name).mkdir()
    (folder / "site" / "sitecustomize.py").write_text(SITE_CUSTOMIZE)
    for name in ("semfield_ns", "method_configs"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    python = folder / "venv" / "bin" / "python"
    if given := os.environ.get("SEMFIELD_WHEEL"):
        shutil.copy(ROOT / given, folder / "wheel")
    elif uv is None:
        check(sys.executable, "-m", "build", "--wheel", "--outdir", folder / "wheel", cwd=folder / "source")
    else:
        check(uv, "build", "--wheel", "--python", sys.executable, "--out-dir", folder / "wheel", cwd=folder / "source")
    wheels = (folder / "wheel").glob("*.whl")
    # Run in the source folder, where uv finds the overrides that spare a compiler ([tool.uv] in pyproject.toml).
    if uv is None:
        check(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
        check(python, "-m", "pip", "install", *wheels, cwd=folder)
    else:
        check(uv, "venv", "--python", sys.executable, folder / "venv", cwd=folder)
        check(uv, "pip", "install", "--python", python, *wheels, cwd=folder / "source")


def check(*command: object, cwd: Path) -> None:
    result = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=1800)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_the_wheel_holds_one_top_level_package(installed: Installed):
    names = zipfile.ZipFile(installed.wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"semfield_ns"}
    assert {"semfield_ns/method_configs/semantic_flow.py", "semfield_ns/py.typed"} <= set(names)
    assert any(name.startswith("semfield_ns/gsn/weights/") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_no_top_level_method_configs_is_installed(installed: Installed):
    result = installed.run("python", "-c", "import semfield_ns.method_configs, method_configs")
    assert "No module named 'method_configs'" in result.stderr


@pytest.mark.slow
def test_the_installed_commands_start_without_the_extras(installed: Installed):
    result = installed.run("python", "-c", RUN_COMMANDS)
    assert re.findall(r"^(\S+) ends with (\S+)$", result.stdout, re.M) == [(name, "0") for name in COMMANDS], (
        result.stdout + result.stderr
    )
    for name in METHODS:
        assert re.search(rf"\b{name}\b", result.stdout), name
    result = installed.run("semfield", "--help")
    assert result.returncode == 0, result.stderr
    assert "demo" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("method", ["semantic-flow-splat", "gsn"])
def test_the_installed_methods_explain_their_settings(installed: Installed, method: str):
    result = installed.run("ns-train", method, "--help")
    assert result.returncode == 0, result.stderr
    assert "--max-num-iterations" in result.stdout and "--pipeline.model." in result.stdout


@pytest.mark.slow
def test_the_installed_version_is_the_declared_one(installed: Installed):
    assert installed.run("semfield", "--version").stdout == f"semfield {pyproject()['project']['version']}\n"


@pytest.mark.slow
@pytest.mark.flaky(reruns=2)
def test_the_plugin_adds_little_to_the_start(installed: Installed):
    code = (
        "import sys; sys.argv = ['ns-train', '--help']; from nerfstudio.scripts.train import entrypoint; entrypoint()"
    )
    seconds: dict[str, list[float]] = {"": [], "1": []}
    extra = allowed = 0.0
    # The least of some tries: a busy machine makes the same work take a tenth longer or shorter.
    for attempt in range(4):
        for hidden, times in seconds.items():
            before = os.times()
            result = installed.run("python", "-c", code, WITHOUT_PLUGIN=hidden)
            after = os.times()
            assert result.returncode == 0, result.stderr
            assert ("semantic-flow" in result.stdout) == (hidden == "")
            # Processor time: what else runs on the machine does not count.
            times.append(after.children_user + after.children_system - before.children_user - before.children_system)
        extra, allowed = min(seconds[""]) - min(seconds["1"]), MAX_EXTRA_SHARE * min(seconds["1"])
        if attempt > 0 and extra <= allowed:
            break
    print(f"start-up: {min(seconds['']):.2f} s with the plugin, {min(seconds['1']):.2f} s without")
    assert extra <= allowed, f"{extra:.2f} s of {min(seconds['']):.2f} s"


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_dependencies_resolve(version):
    uv = shutil.which("uv", path=Path(sys.executable).parent) or shutil.which("uv")
    if uv is None:
        pytest.skip("no uv")
    arguments = ["pip", "compile", "--quiet", "--python-version", version, "--extra", "process", "pyproject.toml"]
    result = subprocess.run([uv, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300)
    if re.search("error sending request|dns error|[Tt]imed? ?out|offline", result.stderr):
        pytest.skip("no network")
    assert result.returncode == 0, result.stderr
    assert re.search(r"^nerfstudio==", result.stdout, re.MULTILINE)
