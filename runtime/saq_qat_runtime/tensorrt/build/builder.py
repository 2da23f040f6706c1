"""From an ONNX file to an engine, in the words of TensorRT's Python API; every version takes this path.

`library` is the module ``tensorrt`` (10.13 or later, 11) or ``tensorrt_rtx``. The building process imports
this module: standard library only.
"""

import time
from pathlib import Path
from typing import Any

from saq_qat_runtime.tensorrt.build.exchange import Answer, BuildFailure, LayerSource, Request
from saq_qat_runtime.tensorrt.build.journal import Journal, create_logger
from saq_qat_runtime.tensorrt.build.profiles import RawTensor, batch_ranges, tensor_specs
from saq_qat_runtime.tensorrt.build.timing_cache import TimingCache
from saq_qat_runtime.tensorrt.engine_record import Profile

__all__ = ["build", "configure", "inspect", "parse"]

_MEBIBYTE = 1 << 20
_NO_TIMING_CACHE = "TensorRT-RTX measures no kernels when it builds: the timing cache is left alone."


def build(library: Any, request: Request, journal: Journal, engine: Path) -> Answer:
    """Parse, configure, build, write ``engine``, and list its layers.

    Raises:
        BuildFailure: the library refused the graph or failed to build it.
    """
    started = time.perf_counter()
    logger = create_logger(library, journal)
    builder = _create_builder(library, logger, journal)
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parse(library, network, logger, request.source)
    inputs, outputs = _tensors(library, network)
    profiles = batch_ranges(inputs, request.batch)
    specs = tensor_specs("input", inputs), tensor_specs("output", outputs)
    config = builder.create_builder_config()
    configure(library, config, request)
    _add_profiles(builder, config, profiles)
    capabilities = _target_capabilities(library, config, request)
    plan, notes = _build_plan(builder, network, config, request, journal)
    with engine.open("wb") as file:
        file.write(plan)
    source, layers = _list_layers(library, logger, request, plan, journal)
    return Answer(
        version=library.__version__,
        inputs=specs[0],
        outputs=specs[1],
        profiles=profiles,
        compute_capabilities=capabilities,
        layer_source=source,
        layers=layers,
        notes=(*notes, *journal.warnings),
        seconds=time.perf_counter() - started,
    )


def _create_builder(library: Any, logger: Any, journal: Journal) -> Any:
    try:
        return library.Builder(logger)
    except TypeError as error:
        # Bindings turn the null that a missing CUDA driver gives into this type of error.
        raise BuildFailure("configure", (*journal.errors, f"no builder could be created: {error}")) from error


def parse(library: Any, network: Any, logger: Any, source: str) -> None:
    """Fill ``network`` from the ONNX file ``source``; weights in other files are found beside it.

    Raises:
        BuildFailure: with each of the parser's errors: node, operator, what is wrong.
    """
    parser = library.OnnxParser(network, logger)
    if not parser.parse_from_file(source):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise BuildFailure("parse", tuple(_parser_error(error) for error in errors))
    if network.num_outputs == 0:
        # The parser skips bytes that it does not know; of some files that leaves an empty graph.
        raise BuildFailure("parse", ("the file holds no graph with an output: it is not an ONNX model.",))


def _parser_error(error: Any) -> str:
    node, name, operator = error.node(), error.node_name(), error.node_operator()
    functions = "".join(f" in {function}" for function in error.local_function_stack())
    text = f"{error.desc().strip()} [{error.code().name}]"
    return f"node {node}, {name or 'unnamed'} ({operator}){functions}: {text}" if node >= 0 else text


def _tensors(library: Any, network: Any) -> tuple[list[RawTensor], list[RawTensor]]:
    """Inputs and outputs of the parsed network."""
    names = {
        library.DataType.FLOAT: "float32",
        library.DataType.HALF: "float16",
        library.DataType.BF16: "bfloat16",
        library.DataType.INT8: "int8",
        library.DataType.UINT8: "uint8",
        library.DataType.INT32: "int32",
        library.DataType.INT64: "int64",
        library.DataType.BOOL: "bool",
    }
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    shape_inputs = [tensor.name for tensor in inputs if tensor.is_shape_tensor]
    if shape_inputs:
        rule = "an input that holds a shape is not supported: export the graph with fixed sizes"
        raise BuildFailure("configure", (f"{', '.join(shape_inputs)}: {rule}.",))
    return (
        [(tensor.name, names.get(tensor.dtype, tensor.dtype.name), tuple(tensor.shape)) for tensor in inputs],
        [
            (tensor.name, names.get(tensor.dtype, tensor.dtype.name), tuple(tensor.shape))
            for tensor in outputs
        ],
    )


def configure(library: Any, config: Any, request: Request) -> None:
    """Set what the request asks for.

    Engines are never refittable: refitting forbids the rewrites that join quantized layers.
    """
    config.profiling_verbosity = library.ProfilingVerbosity.DETAILED
    config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, request.workspace_mib * _MEBIBYTE)
    config.builder_optimization_level = request.optimization_level
    if request.precision == "float32":
        # On by default, and then float32 layers round their factors to 10 bits.
        config.clear_flag(library.BuilderFlag.TF32)
    if request.version_compatible:
        config.set_flag(library.BuilderFlag.VERSION_COMPATIBLE)
    if request.hardware_compatibility == "ampere_plus":
        config.hardware_compatibility_level = library.HardwareCompatibilityLevel.AMPERE_PLUS
    if request.hardware_compatibility == "same_compute_capability":
        config.hardware_compatibility_level = library.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY


def _add_profiles(builder: Any, config: Any, profiles: tuple[Profile, ...]) -> None:
    if not profiles:
        return
    together = builder.create_optimization_profile()
    for profile in profiles:
        together.set_shape(profile.input, profile.minimum, profile.optimum, profile.maximum)
    config.add_optimization_profile(together)


def _target_capabilities(library: Any, config: Any, request: Request) -> tuple[str, ...]:
    """Name every GPU from Ampere on to TensorRT-RTX; Enterprise builds for the GPU it runs on.

    Turing (7.5) is left out: TensorRT-RTX cannot compile an int8 product for it, nor together with others.
    """
    if request.flavour == "tensorrt" or not hasattr(library, "ComputeCapability"):
        return ()
    targets = {
        "8.0": library.ComputeCapability.SM80,
        "8.6": library.ComputeCapability.SM86,
        "8.9": library.ComputeCapability.SM89,
        "12.0": library.ComputeCapability.SM120,
        "12.1": library.ComputeCapability.SM121,
    }
    config.num_compute_capabilities = len(targets)
    for index, (name, capability) in enumerate(targets.items()):
        if not config.set_compute_capability(capability, index):
            raise BuildFailure("configure", (f"the builder refused compute capability {name}.",))
    return tuple(targets)


def _build_plan(
    builder: Any, network: Any, config: Any, request: Request, journal: Journal
) -> tuple[Any, tuple[str, ...]]:
    """The serialized engine, and what the user should know of the timing cache."""
    cache = TimingCache(Path(request.timing_cache)) if request.timing_cache else None
    notes: tuple[str, ...] = ()
    if cache and request.flavour == "tensorrt-rtx":
        cache, notes = None, (_NO_TIMING_CACHE,)
    if cache:
        notes = cache.attach(config)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildFailure("build", tuple(journal.errors))
    return plan, notes + (cache.save(config) if cache else ())


def _list_layers(
    library: Any, logger: Any, request: Request, plan: Any, journal: Journal
) -> tuple[LayerSource, str]:
    """The engine's layers: from the log of TensorRT-RTX, or from the inspector, which needs a GPU."""
    if request.flavour == "tensorrt-rtx":
        return "build log", journal.layers
    return "engine inspector", inspect(library, logger, plan, journal, request.version_compatible)


def inspect(library: Any, logger: Any, plan: Any, journal: Journal, version_compatible: bool) -> str:
    """JSON of the engine inspector for a serialized engine that was built a moment ago; needs a GPU.

    Raises:
        BuildFailure: the engine cannot be loaded again.
    """
    runtime = library.Runtime(logger)
    # A version-compatible engine brings its own runtime as code; this one was made by us.
    runtime.engine_host_code_allowed = version_compatible
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BuildFailure("inspect", tuple(journal.errors))
    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(library.LayerInformationFormat.JSON))
