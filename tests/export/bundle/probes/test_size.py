"""What probes of a network of full size cover, how large they are, and how long a self-test with them is."""

import io
import time

import numpy as np
import pytest

from saq_qat_export.bundle.golden import golden_codes
from saq_qat_export.bundle.probes.make import make_probes
from saq_qat_export.bundle.records import tensor_records
from saq_qat_runtime.codes import CodeEngine, compare_answers
from saq_qat_runtime.recorded import to_arrays
from tests.export.networks import built_in, smooth_images

_SIDE = 64


@pytest.mark.slow  # a ResNet-18: half a minute for its probes alone
def test_a_network_of_full_size_is_covered_for_the_most_part_and_tests_itself_in_seconds() -> None:
    found = built_in("resnet18", 4, 4, _SIDE)
    images = smooth_images(2, _SIDE, seed=1).numpy()
    codes, _ = golden_codes(found.view, found.graph, images)
    started = time.process_time()
    probes = make_probes(found.view, found.graph, images, codes)
    made = time.process_time()
    with CodeEngine(found.graph.content, probes.samples, threads=1) as engine:
        seen = engine.run("image", probes.samples)
    compared = compare_answers(tensor_records(found.view), [(probes.samples.answers, seen)])
    tested = time.process_time()
    file = io.BytesIO()
    np.savez_compressed(file, **to_arrays(probes.samples))  # type: ignore[arg-type]  # no array is called allow_pickle
    size, model = len(file.getvalue()), len(found.graph.content)
    print(
        f"coverage {probes.coverage.share:.4f}, {size:,} bytes beside {model:,} of the model, made in "
        f"{made - started:.1f} s, compared {compared.compared:,} codes in {tested - made:.2f} s"
    )
    assert compared.failure == ""
    assert probes.coverage.share > 0.8
    assert size < 2 * model
