"""Numbers for monitoring, in the text format that Prometheus reads."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from saq_qat_runtime.serve.catalogue import Catalogue, Changes
from saq_qat_runtime.serve.model import ModelPlace

__all__ = ["CONTENT_TYPE", "ModelMetrics", "ServeMetrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)
_MODEL = ("model", "version")


class ServeMetrics:
    """All metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.registry = registry
        self.requests = Counter(
            "saq_requests", "Requests by route and HTTP status", ("route", "code"), registry=registry
        )
        self.request_seconds = Histogram(
            "saq_request_seconds", "From the arrival of a request to its answer",
            ("route",), buckets=_SECONDS, registry=registry,
        )  # fmt: skip  # one value a line is a page
        self.in_flight = Gauge("saq_in_flight", "Requests that are being answered", registry=registry)
        self.reloads = Counter("saq_reloads", "Reloads by result", ("result",), registry=registry)
        self.model_info = Gauge(
            "saq_model_info", "1 for each model that is served",
            (*_MODEL, "sha256", "engine", "products"), registry=registry,
        )  # fmt: skip  # one value a line is a page
        self.queue_length = Gauge("saq_queue_length", "Requests that wait", _MODEL, registry=registry)
        self.healthy = Gauge("saq_model_healthy", "1 while the engine computes", _MODEL, registry=registry)
        self._models = _ModelFamilies(registry)

    def of_model(self, place: ModelPlace) -> "ModelMetrics":
        """The observer of one model's batches and shadow."""
        return ModelMetrics(self._models, place.name, place.version)

    def reloaded(self, catalogue: Catalogue, changes: Changes) -> None:
        """A reload that succeeded."""
        self.reloads.labels("succeeded").inc()
        self.model_info.clear()
        self.queue_length.clear()
        self.healthy.clear()
        for versions in catalogue.models.values():
            for model in versions.values():
                info = model.session.info
                engine = f"{info.backend} {info.backend_version}"
                place = model.place
                self.model_info.labels(
                    place.name, place.version, place.sha256, engine, model.products
                ).set(1)  # fmt: skip  # one value a line is a page

    def text(self, catalogue: Catalogue) -> bytes:
        """The exposition."""
        for versions in catalogue.models.values():
            for model in versions.values():
                labels = (model.place.name, model.place.version)
                self.queue_length.labels(*labels).set(model.waiting)
                self.healthy.labels(*labels).set(model.healthy)
        return generate_latest(self.registry)


class _ModelFamilies:
    """Metrics with a line for each model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, text: str, buckets: Sequence[float] = _SECONDS) -> Histogram:
            return Histogram(name, text, _MODEL, buckets=buckets, registry=registry)

        def counter(name: str, text: str) -> Counter:
            return Counter(name, text, _MODEL, registry=registry)

        self.queue_seconds = histogram("saq_queue_seconds", "For which a request waited")
        self.compute_seconds = histogram("saq_compute_seconds", "For which a batch was computed")
        self.batch_size = histogram("saq_batch_size", "Images in a batch", _IMAGES)
        self.shadow_images = counter("saq_shadow_images", "Images that ran on the shadow too")
        self.shadow_flips = counter("saq_shadow_flips", "Images whose best label differs on the shadow")
        self.shadow_dropped = counter("saq_shadow_dropped", "Requests the shadow was too busy for")
        self.shadow_failures = counter("saq_shadow_failures", "Requests the shadow failed on")
        self.shadow_unkept = counter("saq_shadow_unkept", "Requests that flipped and could not be written")
        self.shadow_agreement = Gauge(
            "saq_shadow_agreement", "Share of images with the same best label", _MODEL, registry=registry
        )
        self.shadow_difference = Gauge(
            "saq_shadow_largest_difference", "Largest difference of a logit so far", _MODEL, registry=registry
        )
        self.primary_compared = histogram("saq_shadow_primary_seconds", "Computing, on the first engine")
        self.shadow_seconds = histogram("saq_shadow_seconds", "Computing the same requests, on the shadow")


class ModelMetrics:
    """Implements ModelObserver."""

    def __init__(self, families: _ModelFamilies, name: str, version: str) -> None:
        self._families = families
        self._labels = (name, version)
        self._images = self._flips = 0
        self._difference = 0.0

    def batch_done(self, images: int, queue_seconds: Sequence[float], compute_seconds: float) -> None:
        """See BatchObserver."""
        queue = self._families.queue_seconds.labels(*self._labels)
        for seconds in queue_seconds:
            queue.observe(seconds)
        self._families.compute_seconds.labels(*self._labels).observe(compute_seconds)
        self._families.batch_size.labels(*self._labels).observe(images)

    def shadow_compared(
        self, images: int, flips: int, difference: float, primary_seconds: float, shadow_seconds: float
    ) -> None:
        """See ShadowObserver."""
        self._images += images
        self._flips += flips
        self._difference = max(self._difference, difference)
        families, labels = self._families, self._labels
        families.shadow_images.labels(*labels).inc(images)
        families.shadow_flips.labels(*labels).inc(flips)
        families.shadow_agreement.labels(*labels).set(1 - self._flips / self._images)
        families.shadow_difference.labels(*labels).set(self._difference)
        families.primary_compared.labels(*labels).observe(primary_seconds)
        families.shadow_seconds.labels(*labels).observe(shadow_seconds)

    def shadow_dropped(self) -> None:
        """See ShadowObserver."""
        self._families.shadow_dropped.labels(*self._labels).inc()

    def shadow_failed(self) -> None:
        """See ShadowObserver."""
        self._families.shadow_failures.labels(*self._labels).inc()

    def shadow_unkept(self) -> None:
        """See ShadowObserver."""
        self._families.shadow_unkept.labels(*self._labels).inc()
