# A server for bundles on a CPU, with ONNX Runtime and OpenVINO.
#
#   docker build -f runtime/docker/cpu.Dockerfile -t saq-qat-runtime runtime
#   docker run --rm --read-only --tmpfs /tmp -p 8000:8000 -v "$PWD/export:/bundle:ro" saq-qat-runtime
FROM python:3.12-slim-bookworm AS wheels
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --wheel-dir /wheels '.[serve,openvino]'

FROM python:3.12-slim-bookworm
ENV PYTHONUNBUFFERED=1
# hadolint ignore=DL3013  # The versions are those of the wheels that the stage above made.
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-compile --no-index --find-links /wheels 'saq-qat-runtime[serve,openvino]' \
    && useradd --system --no-create-home --uid 10001 serve
USER 10001
EXPOSE 8000
# Ready, and not merely alive: a model answers only after its self-test has passed.
HEALTHCHECK --start-period=60s --interval=10s --timeout=3s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/v2/health/ready')"]
# Without a shell between, SIGTERM reaches the server, which finishes the requests in flight.
STOPSIGNAL SIGTERM
ENTRYPOINT ["saq-qat-runtime"]
CMD ["serve", "/bundle", "--host", "0.0.0.0"]
