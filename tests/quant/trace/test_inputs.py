"""Which layers are handed the quantizer of their input."""

from torch import fx

from saq_qat.quant.deploy.view import fold_batch_norm
from saq_qat.quant.numerics.layers import QuantLayer
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.quant.trace.inputs import hand_quantizer, quantizer_before
from saq_qat.recipe.schema import ActivationQuantizer
from tests.quant.networks import Swish, policy, quantized


def network() -> fx.GraphModule:
    return quantized(Swish(), policy(activation=ActivationQuantizer(bits=4, offset="bounded")))[0]


def handed(network: fx.GraphModule) -> dict[str, str]:
    """Layers with a second argument, and what that is."""
    return {
        str(node.target): str(node.args[1].target)
        for node in network.graph.nodes
        if node.op == "call_module" and len(node.args) > 1 and isinstance(node.args[1], fx.Node)
    }


def test_layers_that_pad_codes_with_an_offset_know_their_quantizer_through_carriers() -> None:
    assert handed(network()) == {"depthwise": "quantizers.act", "body": "quantizers.hardswish"}


def test_in_the_deploy_stage_every_layer_behind_codes_does() -> None:
    stage = fold_batch_norm(network())
    layers = [name for name, module in stage.named_modules() if isinstance(module, QuantLayer)]
    assert list(handed(stage)) == layers
    for node in stage.graph.nodes:
        if node.target in layers:
            before = quantizer_before(stage, node)
            assert isinstance(before, Quantizer)
            assert before is stage.get_submodule(handed(stage)[str(node.target)])


def test_handing_twice_is_handing_once() -> None:
    stage = network()
    before = [str(node) for node in stage.graph.nodes]
    for node in list(stage.graph.nodes):
        if node.target in ("depthwise", "body"):
            hand_quantizer(stage, node)
    assert [str(node) for node in stage.graph.nodes] == before
