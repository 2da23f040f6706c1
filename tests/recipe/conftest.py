"""A small, complete recipe that the tests of this folder change."""

import pytest

RECIPE = """\
version: 1
name: small
model: {name: resnet20}
data:
  kind: digits
quant:
  weight: {bits: 4}
  activation: {bits: 4}
train:
  batch_size: 64
  optimizer:
    kind: sgd
    momentum: 0.9
  stages:
    - kind: float
      epochs: 2
      lr: 0.1
    - kind: quantized
      epochs: 2
      lr: 1e-2
      method: {kind: saq, rho: 0.1}
"""


@pytest.fixture
def text() -> str:
    return RECIPE
