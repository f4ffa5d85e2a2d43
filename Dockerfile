# Errata in a container: CPU by default; for CUDA:
#   docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 -t errata:cuda .
FROM python:3.11-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
RUN python -m venv /opt/errata
ENV PATH=/opt/errata/bin:$PATH
# torch first and alone: it is the big layer, and it changes least
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url $TORCH_INDEX} torch==2.13.0
COPY pyproject.toml README.md LICENSE deploy/constraints.txt ./
COPY app ./app
RUN pip install --no-cache-dir -c constraints.txt '.[json]'

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /data errata && install -d -o errata -g errata /data
COPY --from=build /opt/errata /opt/errata
ENV PATH=/opt/errata/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/data/huggingface \
    ERRATA_CACHE_DIR=/data/cache
USER errata
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s \
    CMD ["python", "-c", "import httpx; httpx.get('http://127.0.0.1:8000/readyz', timeout=2, trust_env=False).raise_for_status()"]
# Inside a container loopback reaches nobody. It starts once there is a key (errata keys create), or with
# ERRATA_ALLOW_ANONYMOUS=true where the port is published to nobody else (docker-compose.yml).
CMD ["errata", "serve", "--host", "0.0.0.0", "--port", "8000"]
