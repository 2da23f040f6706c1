"""Float networks: the built-in ones, a user's own, and their pretrained weights."""

from saq_qat.models.attention import separate_attention
from saq_qat.models.build import build_model
from saq_qat.models.pretrained import PretrainedReport, load_pretrained
from saq_qat.models.probe import check_takes_images

__all__ = ["PretrainedReport", "build_model", "check_takes_images", "load_pretrained", "separate_attention"]
