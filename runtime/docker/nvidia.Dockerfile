# A server for bundles on an NVIDIA GPU, with TensorRT. The wheels of TensorRT bring its libraries; of the base image
# only the setup for NVIDIA's container toolkit is used.
#
#   docker build -f runtime/docker/nvidia.Dockerfile -t saq-qat-runtime-gpu runtime
#   docker run --rm --gpus all -v "$PWD/export:/bundle" saq-qat-runtime-gpu build /bundle
#   docker run --rm --gpus all -p 8000:8000 -v "$PWD/export:/bundle:ro" saq-qat-runtime-gpu
#
# An engine belongs to the kind of GPU and to the version of TensorRT that built it: build it with this image, on the
# machine that serves it. The user of the container must be allowed to write into the bundle's folder for that
# (docker run --user "$(id -u)").
FROM nvidia/cuda:12.9.1-base-ubuntu24.04
ENV PYTHONUNBUFFERED=1 \
    PATH=/opt/saq-qat/bin:$PATH
# hadolint ignore=DL3008  # Ubuntu removes the versions it replaces, so that a pinned one cannot be built later.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/saq-qat \
    && useradd --system --no-create-home --uid 10001 serve
WORKDIR /source
RUN --mount=type=bind,target=/source,rw \
    pip install --no-cache-dir --no-compile '/source[serve,trt]'
USER 10001
EXPOSE 8000
# Ready, and not merely alive: a model answers only after its self-test has passed.
HEALTHCHECK --start-period=120s --interval=10s --timeout=3s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/v2/health/ready')"]
# Without a shell between, SIGTERM reaches the server, which finishes the requests in flight.
STOPSIGNAL SIGTERM
ENTRYPOINT ["saq-qat-runtime"]
CMD ["serve", "/bundle", "--host", "0.0.0.0"]
